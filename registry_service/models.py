"""The request and response bodies of the registry."""

import re
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pydantic_core import PydanticCustomError

from common.discovery.models import Status
from common.fields import PRINTABLE, RequestBody
from common.version import VERSION

MAX_WAIT_SECONDS = 30

# RFC 1123, §2.1, and the underscores that container networks put into names.
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# What resolvers read as an IPv4 address in one of its old spellings: 127.1, 0x7f.1, 2130706433.
NUMERIC_HOST = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

# No service has an address in these networks (RFC 6890): unspecified, link-local, multicast, reserved; nor in
# those whose addresses embed an IPv4 address, which may be one of them: IPv4-compatible, NAT64, Teredo, 6to4.
UNROUTABLE_NETWORKS = [
    *map(ip_network, ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")),
    *map(ip_network, ("fe80::/10", "fec0::/10", "ff00::/8")),
    *map(ip_network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")),
]


def _host(host: str) -> str:
    """A host name, or an IP address that a service can have, in its canonical spelling."""
    if ":" in host or NUMERIC_HOST.fullmatch(host):
        return _address(host)
    if not HOST_NAME.fullmatch(host):
        raise PydanticCustomError("malformed_host", "A host is a name or an IP address, and nothing else")
    return host


def _address(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError as exc:
        raise PydanticCustomError("malformed_host", "This is not an IP address") from exc
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    is_unroutable = not address.is_loopback and any(address in network for network in UNROUTABLE_NETWORKS)
    if "%" in host or is_unroutable:
        raise PydanticCustomError("unroutable_host", "No other machine can reach a service at this address")
    return str(address)


ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,63}$")]
Host = Annotated[str, StringConstraints(max_length=253, to_lower=True), AfterValidator(_host)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]

# The statuses that an instance may report; only the registry marks one as a suspect.
ReportedStatus = Literal[Status.UP, Status.DEGRADED, Status.DRAINING]


class NewInstance(RequestBody):
    """Where an instance of a service can be reached."""

    service_name: ServiceName = Field(examples=["users"])
    host: Host = Field(examples=["127.0.0.1"])
    port: Port = Field(examples=[5100])
    version: Annotated[str, StringConstraints(max_length=64), PRINTABLE] | None = Field(
        None, examples=["1.0.0"]
    )
    status: ReportedStatus = Field(Status.UP, description="Until a heartbeat reports another one.")


class Heartbeat(RequestBody):
    """The status of an instance."""

    status: ReportedStatus | None = Field(None, description="Absent: as before.", examples=[Status.UP])


class Position(BaseModel):
    """What a client has already, and how long it waits for what is newer."""

    epoch: str | None = Field(None, max_length=64, description="The epoch of the client's snapshot.")
    version: int | None = Field(None, ge=0, le=2**53, description="The version of the client's snapshot.")
    wait: float = Field(
        0,
        ge=0,
        le=MAX_WAIT_SECONDS,
        allow_inf_nan=False,
        description="How many seconds to wait for a newer one.",
    )
    changes: bool = Field(False, description="Whether what has changed since that version is enough.")


class SelfPreservation(BaseModel):
    """Since when, and why, the registry keeps silent instances as `suspect`."""

    since: datetime
    reason: str


class ServiceStatus(BaseModel):
    """How many instances of a service there are."""

    instances: int
    up: int
    last_seen: datetime


class RegistryStatus(BaseModel):
    """The state of the registry itself."""

    uptime_seconds: float = Field(description="Without the time in which the process itself stood still.")
    epoch: str
    version: int
    self_preservation: SelfPreservation | None = Field(description="null unless it is on.")
    services: dict[str, ServiceStatus]


class ScrapeTargets(BaseModel):
    """What Prometheus scrapes, and the labels that it adds: a target group of `http_sd_config`."""

    targets: list[str] = Field(examples=[["127.0.0.1:5100"]])
    labels: dict[str, str] = Field(examples=[{"service": "users", "instance": "127.0.0.1:5100"}])


class Overview(BaseModel):
    """What this is, and where to continue."""

    name: str = "registry"
    description: str = "Services register here, and find each other."
    version: str = VERSION
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    services: str = "/services"
    status: str = "/status"
