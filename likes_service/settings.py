"""The likes service's settings, and its workers'."""

from typing import Annotated

from pydantic import Field, StringConstraints

from common.redis_url import RedisUrl
from common.settings import BeanstalkdSettings, Host, Port, ServiceSettings

Ascii = Annotated[str, StringConstraints(pattern=r"^[ -~]*$")]
SUBMISSIONS_PORT = 465


class LikesSettings(ServiceSettings, BeanstalkdSettings):
    port: int = 8004
    redis_url: Annotated[RedisUrl, Field(min_length=1)] = "redis://127.0.0.1:6379/0"
    smtp_host: Host = "localhost"
    smtp_port: Port = 25
    smtp_from: Annotated[str, StringConstraints(pattern=r"^[^\r\n]+@[^\r\n]+$")] = "microblog@localhost"
    # smtplib sends nothing else.
    smtp_user: Ascii = ""
    smtp_password: Ascii = ""
    smtp_starttls: bool = False
    # None: as the port says.
    smtp_ssl: bool | None = None
    smtp_retry_seconds: Annotated[int, Field(ge=1, le=4 * 60 * 60)] = 60

    @property
    def smtp_implicit_tls(self) -> bool:
        """Whether TLS begins with the connection (RFC 8314, §3.3)."""
        return self.smtp_port == SUBMISSIONS_PORT if self.smtp_ssl is None else self.smtp_ssl


class ValidationWorkerSettings(LikesSettings):
    """Those of the worker that validates likes, which listens on a port of its own."""

    port: int = 8104


class NotificationWorkerSettings(LikesSettings):
    """Those of the worker that mails, which listens on a port of its own."""

    port: int = 8204
