"""The registry's settings."""

from typing import ClassVar

from common.settings import ServiceSettings


class RegistrySettings(ServiceSettings):
    QUIET_PATHS: ClassVar = (*ServiceSettings.QUIET_PATHS, "/heartbeat/", "/services", "/prometheus/targets")

    port: int = 8006
