"""Deleting an account: what is gone at once, and the saga that deletes the rest."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import greenstalk
import httpx2
import pytest
import server_processes
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jose import jwt
from sqlalchemy import text

from common.errors import Conflict, NotFound, Unauthorized
from common.jobs.tubes import event_tube
from common.tokens import Tokens
from tests import tubes
from tests.own_server import Own
from tests.polling import PATIENCE_SECONDS, eventually
from tests.users_service.conftest import WRONG_COUNTS
from users_service import sweep
from users_service.deletion_saga import OTHERS
from users_service.models import Deletion, NewUser
from users_service.relations import BLOCK, MUTE
from users_service.settings import UsersSettings
from users_service.store import UsersStore

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse"
ALICE = {"username": "alice", "password": PASSWORD, "email": "alice@example.com"}
HOUR = timedelta(hours=1)
# What an account leaves in any table but those that it is meant to.
LEFT = text("""
    SELECT 'users' FROM users WHERE username = 'alice'
    UNION ALL SELECT 'words' FROM user_words WHERE username = 'alice'
    UNION ALL SELECT 'follows' FROM follows WHERE 'alice' IN (follower, followee)
    UNION ALL SELECT 'blocks' FROM blocks WHERE 'alice' IN (owner, subject)
    UNION ALL SELECT 'mutes' FROM mutes WHERE 'alice' IN (owner, subject)
""")
EVENTS = text("SELECT tube, payload ->> 'kind', payload ->> 'username' FROM users_outbox ORDER BY tube")
ARE_OVERDUE = text("UPDATE deletion_steps SET ask_at = now() - interval '1 second'")
STEPS = text("""
    SELECT service, attempts, extract(epoch FROM ask_at - now()) FROM deletion_steps ORDER BY service
""")

Headers = dict[str, str]
Process = subprocess.Popen[bytes]


@pytest.fixture
def sign_in(client: TestClient) -> Callable[[], Headers]:
    """The headers of a request with a new token of alice."""
    client.post("/register", json=ALICE)

    def sign_in() -> Headers:
        token = client.post("/login", json={"username": "alice", "password": PASSWORD}).json()
        return {"Authorization": f"Bearer {token['access_token']}"}

    return sign_in


@pytest.fixture
def unswept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is swept away while the test goes on."""
    monkeypatch.setattr(sweep.Sweep, "run", lambda *_: False)


def delete(client: TestClient, headers: Headers, password: str = PASSWORD) -> httpx2.Response:
    return client.post("/users/alice/deletion", json={"password": password}, headers=headers)


def begin(store: UsersStore, jti: str = "last") -> Deletion | None:
    """The deletion of a user whom the fixture `users` has made."""
    return store.deletions.begin("alice", "no hash", jti, HOUR)


def swept(store: UsersStore) -> bool:
    return store.sweep.run("alice", PATIENCE_SECONDS)


def left(store: UsersStore) -> list[str]:
    return [table for (table,) in store._database.rows(LEFT, {})]


# At once


def test_an_account_is_gone_from_every_call_as_soon_as_its_deletion_is_accepted(
    client: TestClient, sign_in: Callable[[], Headers], unswept: None
) -> None:
    user_id = client.get("/users/alice").json()["id"]
    accepted = delete(client, sign_in())

    assert accepted.status_code == 202
    assert accepted.headers["Location"] == "/users/alice/deletion"
    assert accepted.json()["remaining"] == ["likes", "polls", "timelines", "users"]
    paths = ["/users/alice", "/users/alice/followers", "/users/alice/followees"]
    assert {client.get(path).json()["code"] for path in paths} == {"user_not_found"}
    lists = [f"/users?username=alice&id={user_id}", "/search/users?q=ali"]
    assert [client.get(path).json() for path in lists] == [[], []]


def test_an_account_is_gone_from_the_lists_and_counts_of_others_before_it_is_swept(
    client: TestClient, store: UsersStore, users: Callable[..., None], as_user: Callable[[str], Headers]
) -> None:
    users("alice", "bobby", "carol")
    for follower, followee in (
        ("alice", "bobby"),
        ("bobby", "alice"),
        ("bobby", "carol"),
        ("carol", "bobby"),
    ):
        store.follow(follower, followee)
    store.relations.mark(MUTE, "bobby", "alice")
    begin(store)

    bobby = client.get("/users/bobby").json()
    assert (bobby["followers_count"], bobby["followees_count"]) == (1, 1)
    paths = [f"/users/bobby/{names}" for names in ("followers", "followees", "mutes")]
    shown = [client.get(path, headers=as_user("bobby")).json() for path in paths]
    assert shown == [["carol"], ["carol"], []]
    found = client.get("/users/bobby/relationships?with=alice", headers=as_user("bobby")).json()
    assert found == []


def test_counts_of_others_are_exact_at_each_step_of_the_sweep(
    store: UsersStore, users: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "BATCH", 1)
    others = [f"user_{number}" for number in range(5)]
    users("alice", *others)
    for other in others:
        store.follow(other, "alice")
        store.follow("alice", other)
        store.follow(other, others[0]) if other != others[0] else None
    begin(store)

    seen = set()
    while not store.sweep.run("alice", 0):
        for part, names in store.sweep._batches("alice"):
            store.sweep._delete(part, "alice", names)
            break
        seen |= {(one.followers_count, one.followees_count) for one in store.profiles(others, [])}
        assert store._database.rows(WRONG_COUNTS, {}) == []

    assert seen == {(4, 0), (0, 1)}


def test_the_owner_alone_deletes_an_account(
    client: TestClient,
    sign_in: Callable[[], Headers],
    as_user: Callable[[str], Headers],
    as_service: Callable[[str], Headers],
) -> None:
    sign_in()

    assert delete(client, {}).status_code == 401
    assert delete(client, as_user("bobby")).json()["code"] == "not_yours"
    assert delete(client, as_service("likes")).status_code == 403
    assert client.get("/users/alice").status_code == 200


def test_a_wrong_password_deletes_nothing(client: TestClient, sign_in: Callable[[], Headers]) -> None:
    headers = sign_in()
    refused = delete(client, headers, "wrong horse")

    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    assert client.get("/users/alice", headers=headers).json()["email"] == ALICE["email"]


def test_a_deleted_account_cannot_sign_in_and_its_name_is_never_given_again(
    client: TestClient, sign_in: Callable[[], Headers]
) -> None:
    delete(client, sign_in())

    login = {"username": "alice", "password": PASSWORD}
    assert client.post("/login", json=login).json()["code"] == "wrong_credentials"
    for name in ("alice", "ALICE"):
        again = client.post("/register", json={"username": name, "password": PASSWORD})
        assert (again.status_code, again.json()["code"]) == (409, "username_taken")


def test_the_address_of_a_deleted_account_is_free_again(
    client: TestClient, sign_in: Callable[[], Headers]
) -> None:
    delete(client, sign_in())

    assert client.post("/register", json=ALICE | {"username": "alice_anew"}).status_code == 201


def test_nothing_personal_is_in_what_is_left(
    client: TestClient, sign_in: Callable[[], Headers], store: UsersStore
) -> None:
    delete(client, sign_in())
    rows = store._database.rows(text("SELECT to_jsonb(d) - 'requested_at' FROM deletions AS d"), {})

    assert [set(row) for (row,) in rows] == [{"username", "last_jti", "finished_at"}]
    eventually(lambda: not left(store))


# The last token


def test_the_last_token_is_good_for_its_deletion_alone(
    client: TestClient, sign_in: Callable[[], Headers], as_user: Callable[[str], Headers]
) -> None:
    another, last = sign_in(), sign_in()
    delete(client, last)

    assert client.get("/users/alice/deletion", headers=last).json()["username"] == "alice"
    for path in ("/users/alice", "/users/bobby", "/users/alice/blocks", "/users/bobby/deletion"):
        assert client.get(path, headers=last).json()["code"] == "invalid_token", path
    for method, path in (("POST", "/logout"), ("POST", "/users/follow/bobby"), ("PATCH", "/users/alice")):
        answer = client.request(method, path, headers=last, json=None if method == "POST" else {})
        assert answer.status_code == 401, path
    assert client.get("/users/alice/deletion", headers=another).json()["code"] == "invalid_token"
    assert client.get("/users/alice/deletion", headers=as_user("bobby")).json()["code"] == "not_yours"
    assert client.get("/users/alice/deletion").json()["code"] == "token_required"


def test_services_see_how_far_a_deletion_is(
    client: TestClient, sign_in: Callable[[], Headers], as_service: Callable[[str], Headers]
) -> None:
    delete(client, sign_in())
    found = client.get("/users/alice/deletion", headers=as_service("likes"))

    assert (found.status_code, found.json()["finished_at"]) == (200, None)


def test_an_account_that_was_not_deleted_has_no_deletion(
    client: TestClient, sign_in: Callable[[], Headers], as_service: Callable[[str], Headers]
) -> None:
    for headers in (sign_in(), as_service("likes")):
        assert client.get("/users/alice/deletion", headers=headers).json()["code"] == "deletion_not_found"


def test_an_expired_token_is_the_last_one_of_nothing(
    client: TestClient, store: UsersStore, users: Callable[..., None], app: FastAPI
) -> None:
    users("alice")
    tokens: Tokens = app.state.tokens
    expired = tokens._sign("alice", timedelta(seconds=-1))
    begin(store, jwt.get_unverified_claims(expired)["jti"])

    answer = client.get("/users/alice/deletion", headers={"Authorization": f"Bearer {expired}"})
    assert answer.json()["code"] == "invalid_token"


# At the same time


def test_two_deletions_at_once_are_one(
    client: TestClient, sign_in: Callable[[], Headers], store: UsersStore
) -> None:
    sessions = [sign_in(), sign_in()] * 3
    with ThreadPoolExecutor(len(sessions)) as pool:
        answers = list(pool.map(lambda session: delete(client, session), sessions))

    assert {answer.status_code for answer in answers} <= {202, 401}
    accepted = [answer.json() for answer in answers if answer.status_code == 202]
    assert accepted
    assert len({one["requested_at"] for one in accepted}) == 1
    assert len(store._database.rows(EVENTS, {})) == len(OTHERS)


def test_a_deletion_that_is_repeated_changes_nothing(
    client: TestClient, sign_in: Callable[[], Headers], store: UsersStore
) -> None:
    headers = sign_in()
    delete(client, headers)

    assert delete(client, headers).status_code == 401
    assert len(store._database.rows(EVENTS, {})) == len(OTHERS)


def test_a_follow_or_a_block_while_an_account_is_deleted_leaves_nothing_behind(
    store: UsersStore, users: Callable[..., None]
) -> None:
    others = [f"user_{number}" for number in range(40)]
    users("alice", *others)

    def relate(other: str) -> None:
        dice = Random(other)
        pair = dice.sample(["alice", other], 2)
        with suppress(NotFound, Unauthorized):
            dice.choice([store.follow, partial(store.relations.mark, BLOCK)])(*pair)

    with ThreadPoolExecutor(6) as pool:
        relating = [pool.submit(relate, other) for other in others]
        deleting = pool.submit(begin, store)
        for one in (deleting, *relating):
            one.result()
    assert swept(store)

    assert left(store) == []
    assert store._database.rows(WRONG_COUNTS, {}) == []


def test_a_name_is_not_given_again_to_a_registration_that_waited_for_its_deletion(
    store: UsersStore, users: Callable[..., None]
) -> None:
    users("alice")
    with ThreadPoolExecutor(1) as pool:
        with store._database.transaction() as connection:
            connection.execute(text("DELETE FROM users WHERE username = 'alice'"))
            connection.execute(text("INSERT INTO deletions VALUES ('alice', now(), 'last')"))
            registering = pool.submit(store.register, NewUser(username="alice", password=PASSWORD), "hash")
            eventually(lambda: is_waiting(store))
        with pytest.raises(Conflict, match="taken"):
            registering.result()


def is_waiting(store: UsersStore) -> bool:
    waits = text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return bool(store._database.rows(waits, {}))


def test_a_token_of_a_sign_in_that_ends_after_the_deletion_is_refused(
    client: TestClient, sign_in: Callable[[], Headers], store: UsersStore, app: FastAPI
) -> None:
    headers = sign_in()
    _, generation = store.credentials("alice")
    delete(client, headers)
    late = app.state.tokens.issue("alice", generation)

    answer = client.get("/users/bobby", headers={"Authorization": f"Bearer {late}"})
    assert answer.json()["code"] == "invalid_token"


# The saga


def test_a_deletion_is_told_to_each_service_in_its_transaction(
    store: UsersStore, users: Callable[..., None]
) -> None:
    users("alice")
    begin(store)

    events = store._database.rows(EVENTS, {})
    assert events == [(event_tube(service), "account_deleted", "alice") for service in OTHERS]


def test_a_deletion_is_finished_when_each_service_has_confirmed(
    store: UsersStore, users: Callable[..., None]
) -> None:
    users("alice")
    begin(store)
    seen = []
    for service in ("polls", "users", "polls", "timelines", "likes"):
        store.deletions.confirm("alice", service)
        found = store.deletions.find("alice")
        assert found
        seen.append((found.deletion.remaining, found.deletion.finished_at is not None))

    assert seen == [
        (["likes", "timelines", "users"], False),
        (["likes", "timelines"], False),
        (["likes", "timelines"], False),
        (["likes"], False),
        ([], True),
    ]


def test_the_last_two_confirmations_at_once_finish_a_deletion(
    store: UsersStore, users: Callable[..., None]
) -> None:
    for number in range(20):
        store._database.rows(text("TRUNCATE deletions, deletion_steps"), {})
        users("alice")
        begin(store, str(number))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda service: store.deletions.confirm("alice", service), ("users", *OTHERS)))

        found = store.deletions.find("alice")
        assert found
        assert found.deletion.finished_at


def test_a_service_that_does_not_confirm_is_told_again_each_time_later(
    store: UsersStore, users: Callable[..., None]
) -> None:
    users("alice")
    begin(store)
    store.deletions.confirm("alice", "polls")
    told = [len(store._database.rows(EVENTS, {}))]
    waits = []
    for _ in range(8):
        store.deletions.ask_again()
        store._database.rows(ARE_OVERDUE, {})
        store.deletions.ask_again()
        told.append(len(store._database.rows(EVENTS, {})))
        waits.append({round(float(wait) / 60) for service, _, wait in steps(store) if service == "likes"})

    assert told == [3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert waits == [{2}, {4}, {8}, {16}, {32}, {60}, {60}, {60}]


def steps(store: UsersStore) -> list[tuple[str, int, float]]:
    return store._database.rows(STEPS, {})


def test_a_confirmation_of_an_unknown_account_changes_nothing(store: UsersStore) -> None:
    store.deletions.confirm("alice", "likes")

    assert store.deletions.find("alice") is None


def test_all_that_an_account_has_here_is_swept_away(store: UsersStore, users: Callable[..., None]) -> None:
    others = [f"user_{number}" for number in range(10)]
    users("alice", *others)
    for number, other in enumerate(others):
        pairs = [("alice", other), (other, "alice")]
        for pair in pairs:
            if number % 3 == 0:
                store.follow(*pair)
            else:
                store.relations.mark(BLOCK if number % 3 == 1 else MUTE, *pair)
    begin(store)
    versions = {other: store.followees_version(other) for other in others}

    assert swept(store)

    assert left(store) == []
    assert store._database.rows(WRONG_COUNTS, {}) == []
    assert all(store.followees_version(other) != version for other, version in versions.items())


# With Beanstalkd, and with processes that die


@pytest.fixture
def run(settings: UsersSettings, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a users service as a process of its own; one that is killed at a step, if that is named."""
    started: list[Process] = []

    def run(beanstalkd: int, *crash: str) -> Process:
        environment = os.environ | {
            "PORT": str(server_processes.free_port()),
            "REGISTRY_URL": "",
            "DB_PORT": str(settings.db_port),
            "USERS_DB_NAME": settings.users_db_name,
            "BEANSTALKD_PORT": str(beanstalkd),
        }
        how = ["-m", "tests.crash_at", *crash] if crash else ["-m"]
        command = [sys.executable, *how, "users_service.app"]
        with (tmp_path / "users.log").open("ab") as output:
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def confirm(port: int, *services: str) -> None:
    """Put the confirmations of services on the tube, as they do."""
    with greenstalk.Client(("127.0.0.1", port), encoding=None, use=event_tube("users")) as client:
        for service in services:
            event = {"kind": "account_cleared", "username": "alice", "service": service}
            client.put(tubes.job(event))


def is_finished(store: UsersStore) -> bool:
    found = store.deletions.find("alice")
    return found is not None and found.deletion.finished_at is not None


@pytest.mark.starts
def test_a_deletion_waits_for_beanstalkd_and_for_the_confirmations_from_there(
    run: Callable[..., Process], store: UsersStore, users: Callable[..., None], own: Own
) -> None:
    beanstalkd = own(server_processes.beanstalkd)
    users("alice", "bobby")
    store.relations.mark(MUTE, "bobby", "alice")
    run(beanstalkd.port)
    begin(store)
    eventually(lambda: not left(store))
    assert len(store._database.rows(EVENTS, {})) == 3

    beanstalkd.start()
    for service in OTHERS:
        with greenstalk.Client(("127.0.0.1", beanstalkd.port), watch=event_tube(service)) as client:
            assert '"account_deleted"' in client.reserve(timeout=PATIENCE_SECONDS).body
        assert not is_finished(store)
        confirm(beanstalkd.port, service)

    eventually(lambda: is_finished(store))


@pytest.mark.kills
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        ("users_service.sweep:Sweep._delete", "after"),
        ("users_service.deletion_saga:DeletionSaga.confirm", "before"),
        ("users_service.deletion_saga:DeletionSaga.confirm", "after"),
    ],
)
def test_a_process_that_is_killed_in_the_middle_of_a_deletion_leaves_it_to_the_next(
    run: Callable[..., Process], store: UsersStore, users: Callable[..., None], beanstalkd_port: int,
    step: str, moment: str,
) -> None:  # fmt: skip
    others = [f"user_{number}" for number in range(20)]
    users("alice", *others)
    for other in others:
        store.follow(other, "alice")
        store.relations.mark(MUTE, "alice", other)
    begin(store)
    assert run(beanstalkd_port, step, moment).wait(PATIENCE_SECONDS) == -signal.SIGKILL

    run(beanstalkd_port)
    confirm(beanstalkd_port, *OTHERS)
    eventually(lambda: is_finished(store))

    assert left(store) == []
    assert store._database.rows(WRONG_COUNTS, {}) == []


@pytest.mark.starts
def test_a_confirmation_that_says_nothing_known_is_buried(run: Callable[..., Process], own: Own) -> None:
    beanstalkd = own(server_processes.beanstalkd)
    beanstalkd.start()
    run(beanstalkd.port)
    confirm(beanstalkd.port, "mails")

    with closing(greenstalk.Client(("127.0.0.1", beanstalkd.port))) as client:
        tube = event_tube("users")
        eventually(lambda: client.stats_tube(tube)["current-jobs-buried"] == 1)
