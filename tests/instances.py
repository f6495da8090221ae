"""Instances of services that a registry could have told of."""

from datetime import UTC, datetime

from common.discovery.models import Instance, Status

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
