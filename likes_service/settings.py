"""The likes service's settings, and its workers'."""

from common.settings import BeanstalkdSettings, ServiceSettings


class LikesSettings(ServiceSettings, BeanstalkdSettings):
    port: int = 8004
    redis_url: str = "redis://127.0.0.1:6379/0"
    smtp_host: str = "localhost"
    smtp_port: int = 25
    smtp_from: str = "microblog@localhost"
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_starttls: bool = False
