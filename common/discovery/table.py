"""What one registry says of all services."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from common.discovery.models import LEASE_SECONDS, Changes, Instance, Snapshot, Status

Services = Mapping[str, tuple[Instance, ...]]


class RegistryTable:
    """A registry's last snapshot; it stays in use while the registry is away.

    When the registry comes back empty, instances that have not registered
    again are kept until their lease would have run out.
    """

    def __init__(self) -> None:
        self.snapshot = Snapshot(epoch="", version=0, services={})
        self.services: Services = {}
        self.is_current = False
        self.retained_until = 0.0
        self._retained: Services = {}

    def update(self, news: Snapshot | Changes, now: float) -> None:
        """Use this snapshot from now on, or the last one with these changes."""
        snapshot = self.snapshot.after(news) if isinstance(news, Changes) else news
        if snapshot.epoch != self.snapshot.epoch:
            self._retained, self.retained_until = self.services, now + LEASE_SECONDS
        self._retained = self._unlisted(snapshot) if self._retained and now < self.retained_until else {}
        self.services = {
            name: snapshot.services.get(name, ()) + self._retained.get(name, ())
            for name in snapshot.services.keys() | self._retained.keys()
        }
        self.snapshot = snapshot
        self.is_current = True

    def _unlisted(self, snapshot: Snapshot) -> Services:
        # Once the new registry has listed an address, only its snapshots count: also when they drop it.
        listed = {one.netloc for instances in snapshot.services.values() for one in instances}
        return {
            name: tuple(one for one in instances if one.netloc not in listed)
            for name, instances in self._retained.items()
        }


def merged(tables: Iterable[RegistryTable]) -> Services:
    """What registries say together: of an address, what was heard last from the instance.

    A registry that does not answer counts only while none does: what it said last grows old.
    """
    tables = list(tables)
    counted = [table for table in tables if table.is_current] or tables
    if len(counted) == 1:
        return counted[0].services
    heard: dict[str, Instance] = {}
    for table in counted:
        for one in (one for instances in table.services.values() for one in instances):
            known = heard.get(one.netloc)
            if known is None or _heard(known) < _heard(one):
                heard[one.netloc] = one
    services: dict[str, tuple[Instance, ...]] = {}
    for one in heard.values():
        services[one.service_name] = (*services.get(one.service_name, ()), one)
    return services


def _heard(one: Instance) -> tuple[bool, datetime]:
    """What is greater of the registry that heard from the instance later.

    `last_heartbeat` is as old as the last change. But a registry suspects an instance only after a lease
    without a heartbeat, and does not list it as anything else for longer than that.
    """
    return one.status is not Status.SUSPECT, one.last_heartbeat
