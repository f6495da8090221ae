"""What users mark: bookmarks, which are private, and pins of their own posts."""

from uuid import UUID

from sqlalchemy import text

from common.fields import later_id, new_id
from common.postgres.database import Database
from timelines_service import errors
from timelines_service.models import Post
from timelines_service.post_query import Page, PostList, PostQuery, shown
from timelines_service.reposts import KEEP, lock_original

MAX_PINS = 5

# Bookmarks of one user commit in the order of their ids: a client that pages forward misses none.
TAKE_TURN = text("SELECT pg_advisory_xact_lock(hashtext(:list), hashtext(:username))")
NEWEST = text("SELECT id FROM bookmarks WHERE username = :username ORDER BY id DESC LIMIT 1")
BOOKMARK = text("""
    INSERT INTO bookmarks (post_id, username, id) VALUES (:post_id, :username, :id) ON CONFLICT DO NOTHING
""")
UNBOOKMARK = text("DELETE FROM bookmarks WHERE post_id = :post_id AND username = :username")
BOOKMARKED = PostList("""
    SELECT {columns}, bookmarks.id FROM bookmarks JOIN posts AS page ON page.id = bookmarks.post_id {content}
    WHERE bookmarks.username = :username AND bookmarks.id {past} :cursor
    ORDER BY bookmarks.id {order} LIMIT :limit
""")

PINS = text("SELECT post_id FROM pins WHERE username = :username")
PIN = text("INSERT INTO pins (username, post_id, id) VALUES (:username, :post_id, :id)")
UNPIN = text("DELETE FROM pins WHERE username = :username AND post_id = :post_id")
PINNED = PostQuery("""
    SELECT {columns} FROM pins JOIN posts AS page ON page.id = pins.post_id {content}
    WHERE pins.username = :username ORDER BY pins.id DESC
""")


class Bookmarks:
    """The posts that a user keeps for later, newest bookmark first. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, post_id: UUID, username: str) -> None:
        """Bookmark a post; once more changes nothing. Raises NotFound."""
        with self._database.transaction() as connection:
            original = lock_original(connection, post_id, KEEP)
            connection.execute(TAKE_TURN, {"list": "bookmarks", "username": username})
            newest = connection.execute(NEWEST, {"username": username}).scalar_one_or_none()
            values = {"post_id": original.id, "username": username, "id": later_id(new_id(), newest)}
            connection.execute(BOOKMARK, values)

    def remove(self, post_id: UUID, username: str) -> None:
        """Also of a post that is gone."""
        self._database.rows(UNBOOKMARK, {"post_id": post_id, "username": username})

    def page(self, username: str, page: Page) -> list[tuple[UUID, Post]]:
        """The bookmarked posts, each with the bookmark's own id, by which the list pages."""
        rows = BOOKMARKED.rows(self._database, username, page, username=username)
        return [(row[-1], shown(row[:-1])) for row in rows]


class Pins:
    """The posts that a user shows first, newest pin first. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, post_id: UUID, username: str) -> None:
        """Pin a user's own post; once more changes nothing. Raises NotFound, Forbidden, Conflict."""
        with self._database.transaction() as connection:
            # So a sixth pin cannot come in beside a fifth.
            connection.execute(TAKE_TURN, {"list": "pins", "username": username})
            original = lock_original(connection, post_id, KEEP)
            if original.username != username:
                raise errors.not_your_post()
            pinned = connection.execute(PINS, {"username": username}).scalars().all()
            if original.id in pinned:
                return
            if len(pinned) >= MAX_PINS:
                raise errors.too_many_pins()
            values = {"post_id": original.id, "username": username, "id": new_id()}
            connection.execute(PIN, values)

    def remove(self, post_id: UUID, username: str) -> None:
        self._database.rows(UNPIN, {"post_id": post_id, "username": username})

    def posts(self, username: str, reader: str | None) -> list[Post]:
        """All of them: they are few."""
        return PINNED.run(self._database, reader, {"username": username})
