"""The timelines service's settings."""

from sqlalchemy import URL

from common.postgres.url import PostgresUrl, database_url
from common.settings import BeanstalkdSettings, PostgresSettings, ServiceSettings


class TimelinesSettings(ServiceSettings, PostgresSettings, BeanstalkdSettings):
    port: int = 5200
    timelines_db_name: str = "microblog_timelines"
    timelines_database_url: PostgresUrl | None = None

    @property
    def database(self) -> URL:
        return database_url(self, self.timelines_database_url, self.timelines_db_name)


class TimelinesWorkerSettings(TimelinesSettings):
    """Those of the worker, which listens on a port of its own."""

    port: int = 5300
