"""What a service needs, and how it says that it is."""

import logging
from collections.abc import Iterator
from threading import Event, Lock, Timer

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.api.routing import router
from common.discovery.registration import PROCESS_ID, PROCESS_ID_HEADER
from common.errors import CannotServe
from common.server import dependency
from common.server.app import create_service
from common.server.dependency import Dependency
from common.settings import ServiceSettings
from common.version import VERSION
from tests.polling import PATIENCE_SECONDS, eventually


class ShelfAway(Exception):
    """The shelf cannot be reached."""


class ShelfFull(CannotServe, ShelfAway):
    """The shelf is there, but takes nothing."""


class SpareAway(Exception):
    """The spare one cannot be reached."""


class Shelf:
    """A store without a server: what it does next is set, what it did can be read."""

    def __init__(self, away: type[Exception]) -> None:
        self.outages = (away,)
        self.is_away = False
        self.is_empty = True
        self.breaks_with: Exception | None = None
        self.prepared = 0
        self.is_closed = False
        self.answers = Event()
        self.answers.set()
        self.warning: str | None = None
        self.refuses_with: Exception | None = None
        self.pings = 0
        self._lock = Lock()

    def prepare(self) -> None:
        self.answers.wait()
        self.prepared += 1
        if self.breaks_with:
            raise self.breaks_with
        self._reach()
        self.is_empty = False

    def ping(self) -> str | None:
        with self._lock:
            self.pings += 1
        self.answers.wait()
        self.read()
        return self.warning

    def read(self) -> str:
        self._reach()
        if self.is_empty:
            raise self.outages[0]("the shelf is empty")
        return "a book"

    def close(self) -> None:
        self.is_closed = True

    def _reach(self) -> None:
        if self.refuses_with:
            raise self.refuses_with
        if self.is_away:
            raise self.outages[0]("the shelf is away")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependency, "PREPARE_AGAIN_SECONDS", (0.0, 0.01))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf(ShelfAway)
    yield shelf
    shelf.answers.set()


@pytest.fixture
def spare() -> Shelf:
    return Shelf(SpareAway)


@pytest.fixture
def app(shelf: Shelf, spare: Shelf) -> FastAPI:
    routes = router("tests")

    @routes.get("/book")
    def book() -> str:
        return shelf.read()

    @routes.get("/weather")
    def weather() -> str:
        return "fine"

    settings = ServiceSettings(_env_file=None, registry_url=None, port=1)
    dependencies = [
        Dependency("shelf", shelf, shelf.prepare),
        Dependency("spare", spare, spare.prepare, is_required=False),
    ]
    return create_service("tests", "For tests.", settings, [routes], dependencies)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def _is(client: TestClient, status: str) -> bool:
    return bool(client.get("/health").json()["status"] == status)


def test_who_has_all_it_needs_is_ok(client: TestClient) -> None:
    eventually(lambda: _is(client, "ok"))

    assert client.get("/health").json() == {
        "status": "ok",
        "service": "tests",
        "version": VERSION,
        "checks": {"shelf": "ok", "spare": "ok"},
    }


def test_who_misses_something_vital_is_unavailable(client: TestClient, shelf: Shelf, spare: Shelf) -> None:
    eventually(lambda: _is(client, "ok"))
    shelf.is_away = spare.is_away = True
    answer = client.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "2"
    assert answer.json()["checks"] == {"shelf": "unavailable", "spare": "unavailable"}


def test_who_misses_something_else_is_degraded(client: TestClient, spare: Shelf) -> None:
    eventually(lambda: _is(client, "ok"))
    spare.is_away = True
    answer = client.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["checks"] == {"shelf": "ok", "spare": "unavailable"}


def test_health_says_why_something_is_unavailable(client: TestClient, shelf: Shelf) -> None:
    eventually(lambda: _is(client, "ok"))
    shelf.refuses_with = CannotServe("is read-only")

    assert client.get("/health").json()["reasons"] == {"shelf": "is read-only"}


def test_health_knows_for_a_moment_why_a_request_was_refused(
    client: TestClient, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependency, "REFUSAL_SECONDS", 3600)
    eventually(lambda: _is(client, "ok"))
    shelf.refuses_with = ShelfFull("is full")
    client.get("/book")
    shelf.refuses_with = None

    assert client.get("/health").json()["reasons"] == {"shelf": "is full"}


def test_health_warns_of_a_setting_that_endangers_data(client: TestClient, shelf: Shelf) -> None:
    eventually(lambda: _is(client, "ok"))
    shelf.warning = "forgets books when it is full"
    health = client.get("/health").json()

    assert (health["status"], health["warnings"]) == ("ok", {"shelf": "forgets books when it is full"})


def test_the_log_has_such_a_warning_once(
    client: TestClient, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    eventually(lambda: _is(client, "ok"))
    shelf.warning = "forgets books when it is full"
    for _ in range(3):
        client.get("/health")

    assert caplog.messages.count("shelf: forgets books when it is full") == 1


def test_a_store_is_prepared_before_the_service_listens(
    shelf: Shelf, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependency, "FIRST_PREPARE_SECONDS", PATIENCE_SECONDS)
    shelf.answers.clear()
    Timer(0.2, shelf.answers.set).start()
    with TestClient(app):
        assert not shelf.is_empty


def test_what_is_missing_at_the_start_is_prepared_when_it_is_there(shelf: Shelf, app: FastAPI) -> None:
    shelf.is_away = True
    with TestClient(app) as client:
        eventually(lambda: shelf.prepared > 2)
        assert _is(client, "unavailable")

        shelf.is_away = False

        eventually(lambda: _is(client, "ok"))
        assert client.get("/book").json() == "a book"


def test_a_store_that_answers_but_is_not_prepared_is_not_well(shelf: Shelf, app: FastAPI) -> None:
    shelf.is_empty = False
    shelf.breaks_with = RuntimeError("no privilege to do that")
    with TestClient(app) as client:
        eventually(lambda: shelf.prepared)

        assert _is(client, "unavailable")
        assert client.get("/book").status_code == 200


def test_whatever_prevents_preparing_is_logged_and_tried_again(
    shelf: Shelf, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.breaks_with = RuntimeError("no privilege to do that")
    with TestClient(app) as client:
        eventually(lambda: shelf.prepared > 2)
        shelf.breaks_with = None
        eventually(lambda: _is(client, "ok"))

    assert "no privilege to do that" in caplog.text


def test_an_outage_is_503_on_the_routes_that_need_the_store_only(client: TestClient, shelf: Shelf) -> None:
    eventually(lambda: _is(client, "ok"))
    shelf.is_away = True
    book = client.get("/book")

    assert (book.status_code, book.json()["code"]) == (503, "shelf_unavailable")
    assert int(book.headers["Retry-After"]) > 0
    assert client.get("/weather").status_code == client.get("/livez").status_code == 200


def test_what_comes_back_empty_is_prepared_when_a_request_finds_out(client: TestClient, shelf: Shelf) -> None:
    eventually(lambda: _is(client, "ok"))
    shelf.is_empty = True

    eventually(lambda: client.get("/book").status_code == 200)


def test_what_comes_back_empty_is_prepared_when_only_its_health_is_asked(
    client: TestClient, shelf: Shelf
) -> None:
    eventually(lambda: _is(client, "ok"))
    shelf.is_empty = True

    eventually(lambda: _is(client, "ok"))


def test_what_is_well_is_not_prepared_again(client: TestClient, shelf: Shelf) -> None:
    eventually(lambda: _is(client, "ok"))
    for _ in range(20):
        client.get("/health")
        client.get("/book")

    assert shelf.prepared == 1


def test_what_hangs_is_missed_in_time_and_costs_one_thread(
    client: TestClient, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventually(lambda: _is(client, "ok"))
    monkeypatch.setattr(dependency, "PING_SECONDS", 0.02)
    shelf.answers.clear()
    before = shelf.pings

    assert [client.get("/health").status_code for _ in range(10)] == [503] * 10
    assert shelf.pings == before + 1

    shelf.answers.set()
    eventually(lambda: _is(client, "ok"))


def test_a_store_is_closed_at_the_end(app: FastAPI, shelf: Shelf) -> None:
    with TestClient(app):
        assert not shelf.is_closed

    assert shelf.is_closed


def test_a_process_is_known_by_its_id(client: TestClient) -> None:
    assert client.get("/livez").headers[PROCESS_ID_HEADER] == PROCESS_ID


def test_an_outage_tells_the_log_and_not_the_client_why(
    client: TestClient, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.is_away = True
    with caplog.at_level(logging.WARNING):
        answer = client.get("/book")

    assert "the shelf is away" in caplog.text
    assert "the shelf is away" not in answer.text
