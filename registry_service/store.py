"""Leases in memory: which instances are there, until when, and when to suspect a mass expiry."""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from uuid import uuid4

from common.discovery.models import LEASE_SECONDS, Changes, Instance, Snapshot, Status
from common.fields import new_id
from common.telemetry import metrics
from common.telemetry.instruments import Readings
from registry_service import errors
from registry_service.change_log import ChangeLog
from registry_service.models import (
    NewInstance,
    RegistryStatus,
    ReportedStatus,
    SelfPreservation,
    ServiceStatus,
)

logger = logging.getLogger(__name__)

MAX_INSTANCES = 10_000

# When so many instances fall silent together, and such a share of all, the registry is more likely at fault.
MASS_EXPIRY_COUNT = 3
MASS_EXPIRY_SHARE = 0.5
SUSPECT_SECONDS = 3 * LEASE_SECONDS
# Half a lease without a heartbeat is silent: when all stop at once, the first expiry finds the others so.
SILENT_SECONDS = LEASE_SECONDS / 2


BEST_FIRST = list(Status)

# `localhost` is either address, or both. Other names are not resolved: each machine may do it differently.
LOCALHOST = {"localhost", "127.0.0.1", "::1"}


@dataclass(eq=False)
class _Lease:
    instance: Instance
    ends: float
    reported_status: ReportedStatus
    shares_address: bool

    @property
    def address(self) -> tuple[str, int]:
        return self.instance.host, self.instance.port


@dataclass
class _Service:
    last_seen: datetime
    leases: dict[str, _Lease] = field(default_factory=dict)  # those that are listed


class RegistryStore:
    """The table of instances, at one version after the other.

    Only the event loop touches it, and no verb waits for anything: each one
    is alone with the table from its beginning to its end, without a lock.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.epoch = str(uuid4())
        self._clock = clock
        self._wall_clock = wall_clock
        self._started = clock()
        self._version = 0
        # All leases are of one length, so the one renewed longest ago is the first one, and the next to end.
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        # Those that have ended, and are kept as suspects; also the one that ended first at the front.
        self._suspects: OrderedDict[str, _Lease] = OrderedDict()
        self._addresses: dict[tuple[str, int], list[_Lease]] = {}
        self._services: dict[str, _Service] = {}
        self._log = ChangeLog()
        self._removed: deque[float] = deque()
        self._self_preservation: SelfPreservation | None = None
        self._snapshot: Snapshot | None = None
        self._announce: Callable[[], None] = lambda: None
        metrics.registered_instances.read_from(self._read_instances)

    def on_change(self, announce: Callable[[], None]) -> None:
        """Call `announce` after every change of the version."""
        self._announce = announce

    def register(self, new: NewInstance, shares_address: bool = False) -> Instance:
        """Replaces what was at the same address before, unless both share it.

        Raises Conflict when there are too many.
        """
        self.expire()
        self._vacate(new, shares_address)
        now = self._wall_clock()
        if self._count() >= MAX_INSTANCES:
            raise errors.too_many_instances(MAX_INSTANCES)
        service = self._services.setdefault(new.service_name, _Service(now))
        instance = Instance(instance_id=str(new_id()), registered_at=now, last_heartbeat=now, **dict(new))
        lease = _Lease(instance, self._clock() + LEASE_SECONDS, new.status, shares_address)
        self._leases[instance.instance_id] = lease
        self._addresses.setdefault(lease.address, []).append(lease)
        service.last_seen = now
        metrics.registrations.add("registered")
        self._changed(lease)
        self._forget_one_service()
        return instance

    def beat(self, instance_id: str, status: ReportedStatus | None = None) -> Instance:
        """Renew a lease, and record the status that the instance reports. Raises NotFound."""
        lease = self._lease(instance_id)
        lease.reported_status = status or lease.reported_status
        is_new = lease.instance.status is not lease.reported_status
        now = self._wall_clock()
        lease.instance = lease.instance.model_copy(
            update={"status": lease.reported_status, "last_heartbeat": now}
        )
        lease.ends = self._clock() + LEASE_SECONDS
        self._suspects.pop(instance_id, None)
        self._leases[instance_id] = lease
        self._leases.move_to_end(instance_id)
        self._services[lease.instance.service_name].last_seen = now
        self._snapshot = None
        metrics.heartbeats.add()
        if is_new:
            self._changed(lease)
        return lease.instance

    def deregister(self, instance_id: str) -> None:
        """Raises NotFound."""
        self._remove(self._lease(instance_id))
        metrics.registrations.add("deregistered")

    def _read_instances(self) -> Readings:
        # Of copies, since a scrape reads in another thread.
        return [
            ((name, lease.instance.status.value), 1)
            for name, service in list(self._services.items())
            for lease in list(service.leases.values())
        ]

    def version(self) -> int:
        self.expire()
        return self._version

    def snapshot(self) -> Snapshot:
        """The same object until something in it changes."""
        self.expire()
        if self._snapshot is None:
            services = {
                name: tuple(lease.instance for lease in service.leases.values())
                for name, service in sorted(self._services.items())
                if service.leases
            }
            self._snapshot = Snapshot(epoch=self.epoch, version=self._version, services=services)
        return self._snapshot

    def changes(self, since: int) -> Changes | None:
        """What has changed after a version of this epoch; None if that is too long ago."""
        self.expire()
        ids = self._log.since(since)
        if ids is None:
            return None
        leases = {one: self._find_listed(one) for one in ids}
        return Changes(
            epoch=self.epoch,
            since=since,
            version=self._version,
            changed=tuple(lease.instance for lease in leases.values() if lease),
            removed=tuple(one for one, lease in leases.items() if lease is None),
        )

    def instances(self, service_name: str) -> list[Instance]:
        """Raises NotFound for a service that was never seen."""
        self.expire()
        service = self._services.get(service_name)
        if service is None:
            raise errors.service_not_found(service_name)
        return [lease.instance for lease in service.leases.values()]

    def status(self) -> RegistryStatus:
        self.expire()
        services = {}
        for name, service in sorted(self._services.items()):
            statuses = [lease.instance.status for lease in service.leases.values()]
            services[name] = ServiceStatus(
                instances=len(statuses), up=statuses.count(Status.UP), last_seen=service.last_seen
            )
        return RegistryStatus(
            uptime_seconds=round(self._clock() - self._started, 3),
            epoch=self.epoch,
            version=self._version,
            self_preservation=self._self_preservation if self._suspects else None,
            services=services,
        )

    def expire(self) -> None:
        """Remove instances whose lease has run out. Every verb begins with this: none sees an expired one."""
        now = self._clock()
        ended = _ended(self._leases, now)
        if ended and self._is_suspicious(ended[-1].ends):
            self._suspect(ended)
        elif ended:
            self._removed.extend(lease.ends for lease in ended)
            self._expire(ended)
        if self._suspects:
            self._expire(_ended(self._suspects, now - SUSPECT_SECONDS))

    def _is_suspicious(self, now: float) -> bool:
        """Whether most are silent, or gone, since not longer than one lease."""
        first, last = now - LEASE_SECONDS, now + LEASE_SECONDS - SILENT_SECONDS
        while self._removed and self._removed[0] <= first:
            self._removed.popleft()
        silent = len(self._removed) + sum(first < lease.ends for lease in _ended(self._leases, last))
        silent += sum(
            1 for _ in takewhile(lambda lease: first < lease.ends, reversed(self._suspects.values()))
        )
        total = len(self._removed) + self._count()
        if silent < MASS_EXPIRY_COUNT or silent < MASS_EXPIRY_SHARE * total:
            return False
        if not self._suspects:
            reason = f"{silent} of {total} instances fell silent within {LEASE_SECONDS} s"
            self._self_preservation = SelfPreservation(since=self._wall_clock(), reason=reason)
            logger.warning("%s: those whose leases run out are kept as suspects", reason)
        return True

    def _suspect(self, ended: list[_Lease]) -> None:
        for lease in ended:
            lease.instance = lease.instance.model_copy(update={"status": Status.SUSPECT})
            instance_id = lease.instance.instance_id
            self._suspects[instance_id] = self._leases.pop(instance_id)
        self._changed(*ended)

    def _expire(self, leases: list[_Lease]) -> None:
        for lease in leases:
            logger.warning("%s at %s is gone", lease.instance.service_name, lease.instance.netloc)
            metrics.registrations.add("expired")
            self._remove(lease)

    def _lease(self, instance_id: str) -> _Lease:
        self.expire()
        lease = self._find(instance_id)
        if lease is None:
            raise errors.unknown_instance()
        return lease

    def _find(self, instance_id: str) -> _Lease | None:
        return self._leases.get(instance_id) or self._suspects.get(instance_id)

    def _find_listed(self, instance_id: str) -> _Lease | None:
        lease = self._find(instance_id)
        return self._services[lease.instance.service_name].leases.get(instance_id) if lease else None

    def _count(self) -> int:
        return len(self._leases) + len(self._suspects)

    def _vacate(self, new: NewInstance, shares_address: bool) -> None:
        """Remove what is at the new instance's address, of whatever service, but for what shares it."""
        for host in _same_hosts(new.host):
            for lease in tuple(self._addresses.get((host, new.port), ())):
                old = lease.instance
                if shares_address and lease.shares_address and old.service_name == new.service_name:
                    continue
                logger.info("%s at %s gives way to %s", old.service_name, old.netloc, new.service_name)
                metrics.registrations.add("replaced")
                self._remove(lease)

    def _forget_one_service(self) -> None:
        """Names without instances are remembered too, up to a limit."""
        if len(self._services) > MAX_INSTANCES:
            empty = [name for name, service in self._services.items() if not service.leases]
            del self._services[min(empty, key=lambda name: self._services[name].last_seen)]

    def _remove(self, lease: _Lease) -> None:
        instance = lease.instance
        self._leases.pop(instance.instance_id, None)
        self._suspects.pop(instance.instance_id, None)
        self._addresses[lease.address].remove(lease)
        self._changed(lease)
        if not self._addresses[lease.address]:
            del self._addresses[lease.address]

    def _changed(self, *leases: _Lease) -> None:
        """Of leases that are new, gone, or of another status, announce what this changes in the list."""
        changed = dict.fromkeys(one.instance.instance_id for lease in leases for one in self._relist(lease))
        if not changed:
            return
        self._version += 1
        for instance_id in changed:
            self._log.record(instance_id, self._version)
        self._snapshot = None
        self._announce()

    def _relist(self, lease: _Lease) -> list[_Lease]:
        """List the best of those at this one's address, the newest of equals; returns those that change."""
        listed = self._services[lease.instance.service_name].leases
        sharing = self._addresses[lease.address]
        best = min(reversed(sharing), key=lambda one: BEST_FIRST.index(one.instance.status), default=None)
        before = next((one for one in (*sharing, lease) if one.instance.instance_id in listed), None)
        if best is before:
            return [lease] if lease is best else []
        if before:
            del listed[before.instance.instance_id]
        if best:
            listed[best.instance.instance_id] = best
        return [one for one in (before, best) if one]


def _ended(leases: Mapping[str, _Lease], now: float) -> list[_Lease]:
    """Those that end until now, of leases in the order in which they end."""
    ended = []
    for lease in leases.values():
        if lease.ends > now:
            break
        ended.append(lease)
    return ended


def _same_hosts(host: str) -> set[str]:
    """What an instance at this host could be registered as."""
    if host == "localhost":
        return LOCALHOST
    return {host, "localhost"} if host in LOCALHOST else {host}
