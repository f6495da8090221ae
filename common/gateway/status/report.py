"""What the status page says, made of what the scrapes have found."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from common.discovery.models import Status
from common.gateway.status.history import History
from common.gateway.status.reading import Tube
from common.version import VERSION

State = Literal["up", "degraded", "suspect", "draining", "silent", "gone", "down"]
# In which nothing is to be done.
GOOD_STATES = {"up", "draining"}


class ProcessReport(BaseModel):
    """One process. Rates and times are null until two scrapes have told them.

    `silent`: it is registered, but says nothing that can be read; `gone`: it was registered in the last
    minute; `down`: the service has no instance.
    """

    name: str
    instance: str = ""
    state: State
    failure: str = ""
    version: str = ""
    age_seconds: float | None = None
    per_second: float | None = Field(default=None, description="Requests of an instance, jobs of a worker.")
    errors_per_second: float | None = None
    p50_seconds: float | None = None
    p99_seconds: float | None = None
    last_minute: list[float] = Field(default=[], description="`per_second` at each scrape, the oldest first.")


class StoreReport(BaseModel):
    """A store, as the processes of one service find it."""

    name: str
    service: str
    processes: int
    can_use_it: int


class TubeReport(BaseModel):
    """The jobs of a tube."""

    name: str
    ready: int
    delayed: int
    reserved: int
    buried: int
    oldest_ready_seconds: float


class StatusReport(BaseModel):
    """The suite, as this gateway sees it."""

    version: str = VERSION
    at: datetime
    registry: Literal["ok", "unreachable"]
    services: list[ProcessReport]
    workers: list[ProcessReport]
    stores: list[StoreReport]
    tubes: list[TubeReport]


def report(histories: Sequence[History], services: Iterable[str], is_registry_current: bool) -> StatusReport:
    """Of these processes; a service without any is `down`."""
    order = list(services)
    found = {history.target.service for history in histories}
    down = [ProcessReport(name=name, state="down") for name in order if name not in found]
    instances = [_process(one) for one in histories if not one.target.is_worker]
    workers = [_process(one) for one in histories if one.target.is_worker]
    return StatusReport(
        at=datetime.now(UTC),
        registry="ok" if is_registry_current else "unreachable",
        services=sorted([*instances, *down], key=lambda one: (order.index(one.name), one.instance)),
        workers=sorted(workers, key=lambda one: (one.name, one.instance)),
        stores=list(_stores(histories)),
        tubes=list(_tubes(histories)),
    )


def _process(history: History) -> ProcessReport:
    last = history.last
    process = ProcessReport(
        name=history.target.service,
        instance=history.target.netloc,
        state=_state(history),
        failure=history.failure,
        version=(last and last.version) or history.target.version,
    )
    if last is None or history.failure or history.is_gone:
        return process
    return process.model_copy(
        update={
            "age_seconds": None if last.started_at is None else max(time.time() - last.started_at, 0),
            "per_second": history.rate(),
            "errors_per_second": history.error_rate(),
            "p50_seconds": history.quantile(0.5),
            "p99_seconds": history.quantile(0.99),
            "last_minute": history.rates(),
        }
    )


def _state(history: History) -> State:
    if history.is_gone:
        return "gone"
    return "silent" if history.is_silent else Status(history.target.status).value


def _stores(histories: Iterable[History]) -> Iterator[StoreReport]:
    found: dict[tuple[str, str], list[bool]] = {}
    for history in _present(histories):
        for store, is_up in history.last.stores.items() if history.last else ():
            found.setdefault((store, history.target.service), []).append(is_up)
    for (name, service), ups in sorted(found.items()):
        yield StoreReport(name=name, service=service, processes=len(ups), can_use_it=sum(ups))


def _tubes(histories: Iterable[History]) -> Iterator[TubeReport]:
    """Each once: all workers of a tube say the same, at moments that differ a little."""
    tubes: dict[str, Tube] = {}
    for history in _present(histories):
        tubes |= history.last.tubes if history.last else {}
    for name, tube in sorted(tubes.items()):
        jobs = {state: int(count) for state, count in tube.jobs.items()}
        yield TubeReport(name=name, oldest_ready_seconds=tube.oldest_ready_seconds, **jobs)


def _present(histories: Iterable[History]) -> Iterator[History]:
    return (history for history in histories if not history.is_gone and not history.failure)
