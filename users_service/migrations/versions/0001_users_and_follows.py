"""Users, and who follows whom."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("email", sa.Text),
        sa.Column("bio", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("followees", sa.Integer, nullable=False, server_default="0"),
        sa.Column("followees_version", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_index("users_email_key", "users", [sa.text("lower(email)")], unique=True)
    op.create_table(
        "follows",
        sa.Column("follower", sa.Text, sa.ForeignKey("users.username", name="follows_follower_fkey")),
        sa.Column("followee", sa.Text, sa.ForeignKey("users.username", name="follows_followee_fkey")),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.PrimaryKeyConstraint("follower", "followee"),
    )
    op.create_index(
        "follows_newest", "follows", ["follower", sa.text("position DESC")], postgresql_include=["followee"]
    )


def downgrade() -> None:
    op.drop_table("follows")
    op.drop_table("users")
