"""The registry's settings."""

from typing import ClassVar

from common.settings import HeaderToken, ServiceSettings


class RegistrySettings(ServiceSettings):
    QUIET_PATHS: ClassVar = (
        *ServiceSettings.QUIET_PATHS,
        "/register",
        "/heartbeat/",
        "/deregister/",
        "/services",
        "/prometheus/targets",
    )

    port: int = 8006
    registry_token_previous: HeaderToken = ""

    @property
    def registry_tokens(self) -> list[str]:
        """Those that let a process register; none where only this machine may."""
        both = [self.registry_token, self.registry_token_previous] if self.registry_token else []
        return [token for token in both if token]
