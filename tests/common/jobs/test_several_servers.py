"""Jobs on two real Beanstalkds, of which one is killed, paused, draining, or comes back."""

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from threading import Event, Thread

import greenstalk
import pytest
import server_processes
from pydantic import BaseModel

from common.jobs import producer as module
from common.jobs.conditions import conditions
from common.jobs.producer import Producer
from common.jobs.queue import TIMEOUT_SECONDS, JobQueue, QueueUnavailable
from common.jobs.worker import each, queues_on, work
from common.settings import Server
from tests.own_server import Own, OwnServer
from tests.polling import eventually
from tests.scrape import value

numbers = count()

pytestmark = pytest.mark.kills


class Number(BaseModel):
    number: int


@pytest.fixture
def tube() -> str:
    return f"test.several.{next(numbers)}"


on_disk = pytest.mark.parametrize("beanstalkds", [{"durable": True}], indirect=True, ids=["on_disk"])


@pytest.fixture
def beanstalkds(own: Own, request: pytest.FixtureRequest) -> list[OwnServer]:
    """Two, with their jobs `on_disk` or not."""
    options = getattr(request, "param", {"durable": False})
    servers = [own(partial(server_processes.beanstalkd, **options)) for _ in range(2)]
    for server in servers:
        server.start()
    return servers


def _addresses(beanstalkds: list[OwnServer]) -> list[Server]:
    return [("127.0.0.1", server.port) for server in beanstalkds]


@pytest.fixture
def producer(beanstalkds: list[OwnServer], tube: str) -> Iterator[Producer]:
    with closing(Producer(_addresses(beanstalkds), tube)) as producer:
        yield producer


@pytest.fixture
def never_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is left out stays so while the test goes on."""
    monkeypatch.setattr(module, "PING_SECONDS", 3600)


def _put(producer: Producer, numbers: range) -> None:
    for number in numbers:
        producer.put(Number(number=number))


def _waiting(server: OwnServer, tube: str) -> int:
    """How many jobs of the tube are ready there."""
    with greenstalk.Client(("127.0.0.1", server.port), use=tube) as client:
        return int(client.stats_tube(tube)["current-jobs-ready"])


@contextmanager
def _working(
    beanstalkds: list[OwnServer], tube: str, outages: type[Exception] = OSError
) -> Iterator[list[int]]:
    """The numbers that a worker on all of the servers has handled."""
    handled: list[int] = []
    stop = Event()
    handle = each(lambda payload: handled.append(payload["number"]))
    with queues_on(_addresses(beanstalkds), tube) as queues:
        worker = Thread(target=work, args=(queues, handle, (outages,), stop))
        worker.start()
        try:
            yield handled
        finally:
            stop.set()
            worker.join()


def test_jobs_are_spread_over_the_servers(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    _put(producer, range(6))

    assert [_waiting(server, tube) for server in beanstalkds] == [3, 3]


def test_a_worker_takes_jobs_from_each_server(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    _put(producer, range(10))

    with _working(beanstalkds, tube) as handled:
        eventually(lambda: len(handled) == 10)

    assert sorted(handled) == list(range(10))


@pytest.mark.parametrize("away", [0, 1])
def test_every_job_finds_a_server_while_one_is_away(
    producer: Producer, beanstalkds: list[OwnServer], tube: str, away: int
) -> None:
    _put(producer, range(2))
    beanstalkds[away].kill()

    _put(producer, range(2, 12))

    assert _waiting(beanstalkds[1 - away], tube) == 11


def test_a_server_that_drains_is_passed_over(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    beanstalkds[0].signal(signal.SIGUSR1)

    _put(producer, range(4))

    assert _waiting(beanstalkds[1], tube) == 4


@pytest.mark.usefixtures("never_back")
def test_a_paused_server_takes_a_part_of_the_time_limit_once(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    _put(producer, range(2))
    beanstalkds[0].hang()
    started = time.monotonic()
    _put(producer, range(2, 4))
    first = time.monotonic() - started
    _put(producer, range(4, 104))

    assert first >= TIMEOUT_SECONDS / 2
    assert _waiting(beanstalkds[1], tube) == 103


def test_servers_that_all_hang_take_no_longer_than_one(producer: Producer) -> None:
    given: list[float] = []

    def hang(queue: JobQueue, seconds: float) -> None:
        given.append(seconds)
        raise QueueUnavailable

    with pytest.raises(QueueUnavailable):
        producer._on_any(hang)

    assert given[0] <= TIMEOUT_SECONDS / 2
    assert given[1] <= TIMEOUT_SECONDS


def test_a_server_that_is_back_takes_jobs_again(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    beanstalkds[0].kill()
    _put(producer, range(2))
    beanstalkds[0].start()

    def is_used() -> bool:
        _put(producer, range(1))
        return _waiting(beanstalkds[0], tube) > 0

    assert eventually(is_used)
    assert producer.ping() is None


@on_disk
def test_jobs_on_a_server_that_was_away_are_handled_once_it_is_back(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    _put(producer, range(10))
    beanstalkds[0].kill()

    with _working(beanstalkds, tube) as handled:
        eventually(lambda: len(handled) == 5)
        beanstalkds[0].start()
        eventually(lambda: len(handled) == 10)

    assert sorted(handled) == list(range(10))


@on_disk
def test_a_delayed_job_survives_the_absence_of_its_server(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    producer.put(Number(number=1), delay=1)
    beanstalkds[0].kill()
    beanstalkds[0].start()

    with _working(beanstalkds, tube) as handled:
        eventually(lambda: handled == [1])


def test_without_any_server_a_put_is_refused(producer: Producer, beanstalkds: list[OwnServer]) -> None:
    for server in beanstalkds:
        server.kill()

    for call in (producer.ping, partial(producer.put, Number(number=1))):
        with pytest.raises(QueueUnavailable, match="Connection refused"):
            call()


def test_the_first_server_that_is_back_is_used_at_once(
    producer: Producer, beanstalkds: list[OwnServer], tube: str, never_back: None
) -> None:
    for server in beanstalkds:
        server.kill()
    with pytest.raises(QueueUnavailable):
        producer.ping()
    beanstalkds[1].start()

    _put(producer, range(4))

    assert _waiting(beanstalkds[1], tube) == 4


def test_a_ping_names_the_server_that_is_away(producer: Producer, beanstalkds: list[OwnServer]) -> None:
    beanstalkds[1].kill()
    producer.ping()

    assert eventually(producer.ping) == f"127.0.0.1:{beanstalkds[1].port} cannot be used: its jobs wait"
    assert value("microblog_queue_server_up", server_address=f"127.0.0.1:{beanstalkds[1].port}") == 0


def test_a_worker_is_healthy_until_the_last_server_is_away(
    beanstalkds: list[OwnServer], tube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions, "_met", {})

    def unavailable() -> bool:
        return bool(conditions.by_name({"beanstalkd": JobQueue.outages}))

    beanstalkds[0].kill()
    with closing(Producer(_addresses(beanstalkds), tube)) as producer, _working(beanstalkds, tube) as handled:
        _put(producer, range(3))
        eventually(lambda: len(handled) == 3)
        was_unavailable = unavailable()
        beanstalkds[1].kill()
        eventually(unavailable)
        beanstalkds[0].start()
        eventually(lambda: not unavailable())

    assert not was_unavailable


def test_a_worker_shows_the_jobs_of_all_servers_and_the_greatest_age(
    producer: Producer, beanstalkds: list[OwnServer], tube: str
) -> None:
    for number in range(4):
        producer.put(Number(number=number), delay=3600)
    delayed = {"messaging_destination_name": tube, "state": "delayed"}

    with _working(beanstalkds, tube):
        assert eventually(lambda: value("microblog_queue_jobs", **delayed)) == 4
        beanstalkds[0].kill()
        eventually(lambda: value("microblog_queue_jobs", **delayed) == 2)


def test_one_server_is_used_as_if_there_could_be_no_other(
    own: Own, tube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own(server_processes.beanstalkd)
    asked: list[float] = []
    monkeypatch.setattr(JobQueue, "put", lambda queue, payload, delay, seconds: asked.append(seconds))
    with closing(Producer(_addresses([server]), tube)) as producer:
        with pytest.raises(QueueUnavailable):
            producer.ping()
        producer.put(Number(number=1))

    assert asked[0] == pytest.approx(TIMEOUT_SECONDS, abs=0.5)
