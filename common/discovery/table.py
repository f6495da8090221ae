"""What one registry says of all services."""

from collections.abc import Iterable, Mapping

from common.discovery.models import LEASE_SECONDS, Instance, Snapshot

Services = Mapping[str, tuple[Instance, ...]]


class RegistryTable:
    """A registry's last snapshot; it stays in use while the registry is away.

    When the registry comes back empty, instances that have not registered
    again are kept until their lease would have run out.
    """

    def __init__(self) -> None:
        self.epoch = ""
        self.version = 0
        self.services: Services = {}
        self.is_current = False
        self.retained_until = 0.0
        self._retained: Services = {}

    def update(self, snapshot: Snapshot, now: float) -> None:
        """Use this snapshot from now on."""
        if snapshot.epoch != self.epoch:
            self._retained, self.retained_until = self.services, now + LEASE_SECONDS
        # Once the new registry has listed an address, only its snapshots count: also when they drop it.
        retained = self._retained if now < self.retained_until else {}
        listed = {one.netloc for instances in snapshot.services.values() for one in instances}
        self._retained = {
            name: tuple(one for one in instances if one.netloc not in listed)
            for name, instances in retained.items()
        }
        self.services = {
            name: snapshot.services.get(name, ()) + self._retained.get(name, ())
            for name in snapshot.services.keys() | self._retained.keys()
        }
        self.epoch, self.version = snapshot.epoch, snapshot.version
        self.is_current = True


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
            if known is None or known.last_heartbeat < one.last_heartbeat:
                heard[one.netloc] = one
    services: dict[str, tuple[Instance, ...]] = {}
    for one in heard.values():
        services[one.service_name] = (*services.get(one.service_name, ()), one)
    return services
