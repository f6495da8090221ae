"""What the registry and its clients exchange."""

import ssl
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from common.settings import netloc

LEASE_SECONDS = 15
HEARTBEAT_SECONDS = 5


class Status(StrEnum):
    """How an instance is, the best first; to all but the last requests may be sent."""

    UP = "up"
    DEGRADED = "degraded"
    SUSPECT = "suspect"
    DRAINING = "draining"


class Instance(BaseModel):
    """One registered process of a service."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    service_name: str
    host: str
    port: int
    version: str | None
    status: Status
    registered_at: datetime
    last_heartbeat: datetime

    @property
    def netloc(self) -> str:
        return netloc(self.host, self.port)


class Snapshot(BaseModel):
    """Everything that the registry knows, at one version of one epoch of it."""

    epoch: str
    version: int
    services: dict[str, tuple[Instance, ...]]

    def after(self, changes: "Changes") -> "Snapshot":
        """The snapshot at the version of these changes, which are those since this one."""
        instances = {one.instance_id: one for each in self.services.values() for one in each}
        instances |= {one.instance_id: one for one in changes.changed}
        for instance_id in changes.removed:
            instances.pop(instance_id, None)
        services: dict[str, list[Instance]] = {}
        for one in instances.values():
            services.setdefault(one.service_name, []).append(one)
        return Snapshot.model_validate(
            {"epoch": changes.epoch, "version": changes.version, "services": services}
        )


class Changes(BaseModel):
    """What has changed in the registry since an earlier version of the same epoch."""

    epoch: str
    since: int
    version: int
    changed: tuple[Instance, ...] = Field(description="Those that are new, or have another status.")
    removed: tuple[str, ...] = Field(description="The ids of those that are gone.")


def addresses(registry_url: str | None) -> list[str]:
    """The URL of each registry: REGISTRY_URL has them separated by commas."""
    return [url for url in (registry_url or "").split(",") if url]


def tls(url: str) -> ssl.SSLContext | bool:
    """How to check the certificate at a URL: by the system's authorities, or by those in SSL_CERT_FILE.

    False for plain HTTP: a context takes a tenth of a second and some megabytes to make.
    """
    return ssl.create_default_context() if url.startswith("https:") else False


class Lease(BaseModel):
    """What a registered instance has to know: its id, and how to keep its place."""

    instance_id: str
    lease_seconds: int = LEASE_SECONDS
    heartbeat_seconds: int = HEARTBEAT_SECONDS
