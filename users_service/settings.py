"""The users service's settings."""

from typing import ClassVar

from sqlalchemy import URL

from common.postgres.url import PostgresUrl, database_url
from common.settings import BeanstalkdSettings, PostgresSettings, ServiceSettings


class UsersSettings(ServiceSettings, PostgresSettings, BeanstalkdSettings):
    QUIET_PATHS: ClassVar = (*ServiceSettings.QUIET_PATHS, "/revocations")

    port: int = 5100
    users_db_name: str = "microblog_users"
    users_database_url: PostgresUrl | None = None
    users_read_database_url: PostgresUrl | None = None

    @property
    def database(self) -> URL:
        return database_url(self, self.users_database_url, self.users_db_name)

    @property
    def read_database(self) -> URL | None:
        """A standby's, if there is one."""
        url = self.users_read_database_url
        return database_url(self, url, self.users_db_name) if url else None
