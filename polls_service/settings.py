"""The polls service's settings."""

from common.settings import ServiceSettings


class PollsSettings(ServiceSettings):
    port: int = 8005
    # Empty: AWS's own endpoint, with the usual chain of credentials.
    dynamodb_url: str = "http://127.0.0.1:8000"
    dynamodb_polls_table: str = "Polls"
    aws_region: str = "us-east-1"
    aws_access_key_id: str = "dummy"
    aws_secret_access_key: str = "dummy"  # noqa: S105  the specification's default, for a local stand-in
