"""The registry's settings."""

from common.settings import ServiceSettings


class RegistrySettings(ServiceSettings):
    port: int = 8006
