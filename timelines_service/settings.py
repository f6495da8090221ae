"""The timelines service's settings."""

from sqlalchemy import URL

from common.postgres.url import PostgresUrl, database_url
from common.settings import BeanstalkdSettings, PostgresSettings, ServiceSettings


class TimelinesSettings(ServiceSettings, PostgresSettings, BeanstalkdSettings):
    port: int = 5200
    timelines_db_name: str = "microblog_timelines"
    timelines_database_url: PostgresUrl | None = None
    timelines_read_database_url: PostgresUrl | None = None

    @property
    def database(self) -> URL:
        return database_url(self, self.timelines_database_url, self.timelines_db_name)

    @property
    def read_database(self) -> URL | None:
        """A standby's, if there is one."""
        url = self.timelines_read_database_url
        return database_url(self, url, self.timelines_db_name) if url else None


class TimelinesWorkerSettings(TimelinesSettings):
    """Those of the worker, which listens on a port of its own."""

    port: int = 5300
