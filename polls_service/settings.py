"""The polls service's settings."""

from typing import Annotated

from pydantic import StringConstraints

from common.settings import EMPTY_IS_A_VALUE, BeanstalkdSettings, HttpUrl, ServiceSettings


class PollsSettings(ServiceSettings, BeanstalkdSettings):
    port: int = 8005
    # Empty: AWS's own endpoint, with the usual chain of credentials.
    dynamodb_url: Annotated[HttpUrl, EMPTY_IS_A_VALUE] = "http://127.0.0.1:8000"
    dynamodb_polls_table: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{3,255}$")] = "Polls"
    aws_region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")] = "us-east-1"
    aws_access_key_id: str = "dummy"
    aws_secret_access_key: str = "dummy"  # noqa: S105  the specification's default, for a local stand-in
    # With temporary credentials only, as of AWS STS.
    aws_session_token: str = ""
