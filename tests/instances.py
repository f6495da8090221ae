"""Instances of services that a registry could have told of."""

from datetime import UTC, datetime

from common.discovery.directory import Directory
from common.discovery.models import Instance, Snapshot, Status

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def instance(
    port: int, service_name: str = "users", status: Status = Status.UP, host: str = "127.0.0.1"
) -> Instance:
    return Instance(
        instance_id=f"{service_name}-{host}-{port}",
        service_name=service_name,
        host=host,
        port=port,
        version=None,
        status=status,
        registered_at=NOW,
        last_heartbeat=NOW,
    )


def snapshot_of(*instances: Instance) -> Snapshot:
    """A registry's table with these in it, and no others."""
    services: dict[str, tuple[Instance, ...]] = {}
    for one in instances:
        services[one.service_name] = (*services.get(one.service_name, ()), one)
    return Snapshot(epoch="", version=1, services=services)


def directory_of(*instances: Instance) -> Directory:
    """A directory that knows these, and no others."""
    directory = Directory(None)
    directory.update(snapshot_of(*instances), now=0)
    return directory
