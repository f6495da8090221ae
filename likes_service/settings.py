"""The likes service's settings, and its workers'."""

from typing import Annotated

from pydantic import Field, StringConstraints

from common.settings import BeanstalkdSettings, Host, Port, ServiceSettings, url


class LikesSettings(ServiceSettings, BeanstalkdSettings):
    port: int = 8004
    redis_url: Annotated[str, Field(min_length=1), url("redis", "rediss", "unix")] = (
        "redis://127.0.0.1:6379/0"
    )
    smtp_host: Host = "localhost"
    smtp_port: Port = 25
    smtp_from: Annotated[str, StringConstraints(pattern=r"^[^\r\n]+@[^\r\n]+$")] = "microblog@localhost"
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_starttls: bool = False
