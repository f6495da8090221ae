"""Hashes of passwords."""

import subprocess
import sys
import time
import unicodedata
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Barrier, Event, Lock, get_ident
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from passlib.hash import argon2, pbkdf2_sha256

from common.errors import Unavailable
from tests.polling import PATIENCE_SECONDS
from users_service import passwords as module
from users_service.common_passwords import _common, is_common
from users_service.passwords import DUMMY_HASH, Passwords

PARAMETERS = {"time_cost": 2, "memory_cost": 19456, "parallelism": 1}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def passwords(monkeypatch: pytest.MonkeyPatch) -> Passwords:
    """Hashes, for which a caller waits as long as it takes."""
    monkeypatch.setattr(module, "HASH_WAIT_SECONDS", PATIENCE_SECONDS)
    return Passwords()


@pytest.mark.parametrize(
    ("password", "similar"),
    [
        ("x" * 64, "x" * 65),
        ("x" * 72, "x" * 73),
        ("x" * 127, "x" * 128),
        ("correct horse", "correct horse\0"),
        ("correct\0horse", "correct\0house"),
        ("correct horse", "Correct horse"),
        ("correct horse", " correct horse"),
        ("password \N{GRINNING FACE}", "password \N{SMILING FACE WITH OPEN MOUTH}"),
        ("p\N{FULLWIDTH LATIN SMALL LETTER A}ssword", "password"),
        ("pä\N{ZERO WIDTH SPACE}ssword", "pässword"),
    ],
)
def test_a_password_is_right_for_its_own_hash_only(passwords: Passwords, password: str, similar: str) -> None:
    async def check() -> tuple[bool, bool]:
        hashed = await passwords.hash(password)
        return await passwords.verify(password, hashed), await passwords.verify(similar, hashed)

    assert anyio.run(check) == (True, False)


@pytest.mark.parametrize(
    ("password", "same"),
    [
        (unicodedata.normalize("NFC", "pässword"), unicodedata.normalize("NFD", "pässword")),
        (unicodedata.normalize("NFD", "파스워드 열쇠"), unicodedata.normalize("NFC", "파스워드 열쇠")),
        ("p\N{KELVIN SIGN}ssword", "pKssword"),
        (
            "a\N{COMBINING DOT BELOW}\N{COMBINING DOT ABOVE}",
            "a\N{COMBINING DOT ABOVE}\N{COMBINING DOT BELOW}",
        ),
        ("correct\N{NO-BREAK SPACE}horse", "correct horse"),
        ("correct\N{IDEOGRAPHIC SPACE}horse", "correct\N{EM SPACE}horse"),
    ],
    ids=ascii,
)
def test_a_password_is_the_same_in_every_form_that_keyboards_send(
    passwords: Passwords, password: str, same: str
) -> None:
    async def check() -> tuple[bool, bool]:
        hashed = await passwords.hash(password)
        return await passwords.verify(same, hashed), await passwords.needs_rehash(same, hashed)

    assert anyio.run(check) == (True, False)


NOT_NORMAL = unicodedata.normalize("NFD", "pässword")


@pytest.mark.parametrize("kind", [argon2.using(**PARAMETERS), pbkdf2_sha256], ids=lambda it: it.name)
def test_a_hash_of_the_form_that_was_sent_still_fits_and_is_outdated(passwords: Passwords, kind: Any) -> None:
    old = kind.hash(NOT_NORMAL)

    assert anyio.run(passwords.verify, NOT_NORMAL, old)
    assert anyio.run(passwords.needs_rehash, NOT_NORMAL, old)


@pytest.mark.parametrize(("sent", "hashings"), [("wrong horse", 1), ("wröng horse", 1), (NOT_NORMAL, 2)])
def test_a_wrong_password_costs_the_same_whatever_the_account_has(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch, sent: str, hashings: int
) -> None:
    accounts = [anyio.run(passwords.hash, password) for password in ("correct horse", "richtiges Röss")]
    verify, checked = passwords._context.verify, list[str]()
    monkeypatch.setattr(passwords._context, "verify", lambda *it: checked.append(it[1]) or verify(*it))

    for hashed in (*accounts, None):
        assert not anyio.run(passwords.verify, sent, hashed)

    assert checked == [hashed for hashed in (*accounts, DUMMY_HASH) for _ in range(hashings)]


def test_an_old_kind_of_hash_is_right_for_its_own_password_and_outdated(passwords: Passwords) -> None:
    old = pbkdf2_sha256.hash("correct horse")

    assert anyio.run(passwords.verify, "correct horse", old)
    assert not anyio.run(passwords.verify, "correct house", old)
    assert passwords.is_outdated(old)


@pytest.mark.parametrize("hashed", ["$2b$12$" + "a" * 53, "$argon2id$junk", "junk"])
def test_no_password_is_right_for_a_hash_of_an_unknown_kind(passwords: Passwords, hashed: str) -> None:
    assert anyio.run(passwords.verify, "correct horse", hashed) is False


def test_the_three_thousand_most_common_passwords_are_known() -> None:
    assert len(_common()) == 3000
    assert min(map(len, _common())) == 8


@pytest.mark.parametrize("password", ["password", "12345678", "iloveyou", "PassWord1"])
def test_a_common_password_is_known_in_any_case(password: str) -> None:
    assert is_common(password)


@pytest.mark.starts
def test_common_passwords_are_read_when_they_are_needed_only() -> None:
    program = (
        "import users_service.app; from users_service.common_passwords import _common; "
        "print(_common.cache_info())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)

    assert "misses=0" in done.stdout


def test_where_there_is_no_hash_no_password_is_right(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DUMMY_HASH", anyio.run(passwords.hash, "correct horse"))

    assert anyio.run(passwords.verify, "correct horse", None) is False


def test_where_there_is_no_hash_the_work_is_done_all_the_same(passwords: Passwords) -> None:
    async def seconds(hashed: str | None) -> float:
        began = time.process_time()
        await passwords.verify("correct horse", hashed)
        return time.process_time() - began

    hashed = anyio.run(passwords.hash, "another")

    assert anyio.run(seconds, None) > anyio.run(seconds, hashed) / 3


def test_a_hash_is_argon2id_with_salt(passwords: Passwords) -> None:
    first, second = (anyio.run(passwords.hash, "correct horse") for _ in range(2))

    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second


def test_the_event_loop_goes_on_while_a_hash_is_made(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_at_work, has_gone_on = Event(), Event()

    def work(_: str) -> bool:
        is_at_work.set()
        return has_gone_on.wait(PATIENCE_SECONDS)

    async def go_on() -> None:
        while not is_at_work.is_set():
            await anyio.lowlevel.checkpoint()
        has_gone_on.set()

    async def check() -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(go_on)
            return bool(await passwords.hash("correct horse"))

    monkeypatch.setattr(passwords._context, "hash", work)

    assert anyio.run(check)


def test_as_many_hashes_are_made_at_once_as_there_are_cores(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, busiest = 0, 0
    lock, full = Lock(), Barrier(module.CORES)

    def work(_: str) -> str:
        nonlocal busy, busiest
        with lock:
            busy += 1
            busiest = max(busy, busiest)
        full.wait(PATIENCE_SECONDS)
        with lock:
            busy -= 1
        return "hash"

    async def check() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3 * module.CORES):
                group.start_soon(passwords.hash, "correct horse")

    monkeypatch.setattr(passwords._context, "hash", work)
    anyio.run(check)

    assert busiest == module.CORES


def test_memory_is_kept_by_no_more_threads_than_there_are_cores(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    async def check() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20 * module.CORES):
                group.start_soon(passwords.hash, "correct horse")

    monkeypatch.setattr(passwords._context, "hash", lambda _: threads.add(get_ident()))
    for _ in range(3):
        anyio.run(check)

    assert len(threads) <= module.CORES


def test_the_hash_for_unknown_names_costs_what_others_do(passwords: Passwords) -> None:
    assert not passwords.is_outdated(DUMMY_HASH)


def test_a_hash_of_other_parameters_is_outdated(passwords: Passwords) -> None:
    old = argon2.using(time_cost=1, memory_cost=8192, parallelism=1).hash("correct horse")

    assert passwords.is_outdated(old)


def test_a_caller_that_waits_too_long_for_a_hash_is_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HASH_WAIT_SECONDS", 0.05)
    passwords = Passwords()

    async def check() -> None:
        async with AsyncExitStack() as slots:
            for _ in range(module.CORES):
                await slots.enter_async_context(passwords._bulkhead)
            await passwords.hash("correct horse")

    with pytest.raises(Unavailable):
        anyio.run(check)
