"""Revocations that reach a process in the background, over real connections."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from common import revocations as module
from common.discovery import revocations as watching
from common.discovery.revocations import RevocationWatcher
from common.errors import Unauthorized
from common.revocations import Revocation, RevocationChanges, Revocations
from common.tokens import Tokens
from tests.instances import directory_of, instance
from tests.polling import eventually

SOON = int(time.time()) + 3600


def revocation(position: int, username: str = "alice", **fields: object) -> Revocation:
    values = {"jti": None, "generation": 1, "expires_at": SOON} | fields
    return Revocation(position=position, username=username, **values)


def changes(*revocations: Revocation) -> RevocationChanges:
    return RevocationChanges(position=revocations[-1].position, revocations=list(revocations))


class Keeper(ThreadingHTTPServer):
    """Keeps revocations as the users service does; while it is `away`, it answers 503."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.revocations: list[Revocation] = []
        self.change = threading.Condition()
        self.is_away = False
        self.callers: set[str] = set()
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def revoke(self, **fields: object) -> None:
        with self.change:
            self.revocations.append(revocation(len(self.revocations) + 1, **fields))
            self.change.notify_all()

    def after(self, position: int, wait: float) -> RevocationChanges:
        with self.change:
            self.change.wait_for(lambda: len(self.revocations) != position, wait)
            new = [one for one in self.revocations if one.position > position]
            return RevocationChanges(position=len(self.revocations), revocations=new)


class Answer(BaseHTTPRequestHandler):
    server: Keeper

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.server.callers.add(self.headers["Authorization"].removeprefix("Bearer "))
        found = self.server.after(int(query["after"][0]), float(query["wait"][0]))
        body = found.model_dump_json().encode()
        self.send_response(503 if self.server.is_away else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.2)
    keeper = Keeper()
    yield keeper
    keeper.shutdown()
    keeper.server_close()


@pytest.fixture
def watched(keeper: Keeper, tokens: Tokens) -> Iterator[Revocations]:
    directory = directory_of(instance(keeper.server_port))
    with RevocationWatcher("users", directory, tokens, "likes") as watcher:
        yield watcher.revocations


def test_a_revoked_token_is_refused_soon(keeper: Keeper, watched: Revocations) -> None:
    keeper.revoke(jti="1", generation=0)

    eventually(lambda: watched.include("alice", "1", 0))
    assert not watched.include("alice", "2", 0)


def test_revocations_are_asked_for_as_a_service(keeper: Keeper, watched: Revocations, tokens: Tokens) -> None:
    eventually(lambda: keeper.callers)

    assert tokens.subject(next(iter(keeper.callers))) == "service:likes"


def test_while_nobody_tells_revocations_the_last_ones_stay(keeper: Keeper, watched: Revocations) -> None:
    keeper.revoke()
    eventually(lambda: watched.include("alice", "1", 0))

    keeper.is_away = True
    keeper.revoke(username="bobby")
    assert watched.include("alice", "1", 0)

    keeper.is_away = False
    eventually(lambda: watched.include("bobby", "1", 0))


def test_a_keeper_that_is_away_for_a_moment_is_no_warning(
    keeper: Keeper, watched: Revocations, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    keeper.is_away = True

    eventually(lambda: "tells no revocations" in caplog.text)
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_a_keeper_that_is_behind_takes_nothing_back(keeper: Keeper, watched: Revocations) -> None:
    keeper.revoke()
    keeper.revoke(username="bobby")
    eventually(lambda: watched.position == 2)

    keeper.revocations.pop()

    eventually(lambda: watched.position == 1)
    assert watched.include("bobby", "1", 0)


@pytest.mark.parametrize(("generation", "is_refused"), [(0, True), (1, True), (2, False), (3, False)])
def test_tokens_of_earlier_generations_are_refused(generation: int, is_refused: bool) -> None:
    revocations = Revocations()
    revocations.update(changes(revocation(1, generation=2)))

    assert revocations.include("alice", "any", generation) is is_refused
    assert not revocations.include("bobby", "any", generation)


def test_a_token_that_is_revoked_is_unauthorized() -> None:
    revocations = Revocations()
    tokens = Tokens("a secret", "HS256", timedelta(minutes=5), revocations)
    first, second = tokens.issue("alice"), tokens.issue("alice", 1)
    assert tokens.subject(first) == tokens.subject(second) == "alice"

    revocations.update(changes(revocation(1)))

    assert tokens.subject(second) == "alice"
    with pytest.raises(Unauthorized):
        tokens.subject(first)


def test_what_has_expired_is_forgotten() -> None:
    revocations = Revocations()
    revocations.update(changes(revocation(1, jti="1", expires_at=1), revocation(2, jti="2")))

    assert not revocations.include("alice", "1", 0)
    assert revocations.include("alice", "2", 0)


def test_what_came_after_a_position_is_in_the_order_of_positions() -> None:
    revocations = Revocations()
    revocations.update(changes(revocation(1, jti="1"), revocation(2), revocation(3, jti="3", expires_at=1)))
    revocations.update(changes(revocation(4, "bobby"), revocation(5, generation=2), revocation(6, jti="6")))

    assert [one.position for one in revocations.since(0)] == [1, 4, 5, 6]
    assert [one.position for one in revocations.since(4)] == [5, 6]
    assert revocations.since(6) == []


def test_a_list_that_is_full_forgets_what_expires_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 2)
    revocations = Revocations()
    lives = {"long": SOON + 2, "short": SOON, "middle": SOON + 1}
    revocations.update(changes(*[revocation(1, jti=jti, expires_at=at) for jti, at in lives.items()]))

    assert [jti for jti in lives if revocations.include("alice", jti, 0)] == ["long", "middle"]
