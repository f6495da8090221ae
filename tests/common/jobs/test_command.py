"""The command for buried jobs, on a real beanstalkd of its own."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import greenstalk
import pytest
import server_processes

from common.jobs.__main__ import BuriedJobs, main
from common.jobs.queue import Envelope
from tests.commands import run_here
from tests.own_server import Own, OwnServer

ROOT = Path(__file__).parents[3]
READABLE = Envelope(request_id="r", traceparent="", payload={"text": "zażółć"}).model_dump_json().encode()

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def beanstalkd(own: Own) -> OwnServer:
    server = own(server_processes.beanstalkd)
    server.start()
    return server


@pytest.fixture
def client(beanstalkd: OwnServer) -> Iterator[greenstalk.Client[bytes]]:
    with greenstalk.Client(("127.0.0.1", beanstalkd.port), encoding=None) as client:
        yield client


Bury = Callable[..., int]


@pytest.fixture
def bury(client: greenstalk.Client[bytes]) -> Bury:
    """Bury a job; its number."""

    def bury(text: bytes = READABLE, tube: str = "one") -> int:
        client.use(tube)
        client.watch(tube)
        number = client.put(text)
        client.bury(client.reserve_job(number))
        return number

    return bury


@pytest.fixture
def run(beanstalkd: OwnServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    def run(*arguments: object, port: int = beanstalkd.port) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("BEANSTALKD_PORT", str(port))
        return run_here(main, tuple(map(str, arguments)), monkeypatch, capsys)

    return run


def state(client: greenstalk.Client[bytes], number: int) -> str:
    return client.stats_job(number)["state"]


def test_every_buried_job_of_every_tube_is_listed(run: Run, bury: Bury, client) -> None:
    numbers = [bury(tube=tube) for tube in ("one", "two", "one")]
    client.put(READABLE)

    lines = [line.split()[:2] for line in run("list").stdout.splitlines()]

    assert lines == [["one", str(numbers[0])], ["two", str(numbers[1])], ["one", str(numbers[2])]]


def test_one_tube_may_be_listed_alone(run: Run, bury: Bury) -> None:
    bury(tube="one")
    number = bury(tube="two")

    assert run("list", "--tube", "two").stdout.startswith(f"two {number} ")
    assert len(run("list", "--tube", "two").stdout.splitlines()) == 1


def test_a_line_says_how_often_a_job_was_tried_and_how_it_begins(run: Run, bury: Bury) -> None:
    number = bury()
    tube, found, age, attempts, begins = run("list").stdout.strip().split(maxsplit=4)

    assert (tube, found, attempts, begins) == (
        "one",
        str(number),
        "1",
        '{"text": "za\\u017c\\u00f3\\u0142\\u0107"}',
    )
    assert age.endswith("s")


@pytest.mark.parametrize("junk", [b"", b"\xff\n\x1b[2J", b"[" * 60_000])
def test_a_job_that_nobody_can_read_is_one_line_too(run: Run, bury: Bury, junk: bytes) -> None:
    bury(junk)

    listed = run("list").stdout

    assert "unreadable" in listed
    assert listed.count("\n") == 1
    assert listed.strip().isprintable()


def tube_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [re.sub(r"\d+s\)", "…s)", line) for line in done.stderr.splitlines() if line.startswith("tube ")]


def test_listing_tells_of_each_tube_with_jobs_how_many_are_in_which_state(
    run: Run, bury: Bury, client
) -> None:
    bury(tube="posts")
    client.put(READABLE)
    client.put(READABLE, delay=3600)
    client.use("events.likes")
    client.watch("events.likes")
    client.reserve_job(client.put(READABLE))
    client.put(READABLE)

    assert tube_lines(run("list")) == [
        "tube events.likes: ready 1 (…s), delayed 0, reserved 1, buried 0",
        "tube posts: ready 1 (…s), delayed 1 (…s), reserved 0, buried 1 (…s)",
    ]
    assert len(tube_lines(run("list", "--tube", "posts"))) == 1


def test_what_scripts_read_has_no_lines_of_tubes(run: Run, bury: Bury, client) -> None:
    number = bury()
    client.put(READABLE)

    assert [line.split()[1] for line in run("list").stdout.splitlines()] == [str(number)]


@pytest.mark.parametrize("command", [["list"], ["list", "--tube", "one"]])
def test_tubes_are_told_of_even_if_no_job_is_buried(run: Run, client, command: list[str]) -> None:
    client.use("one")
    client.put(READABLE)

    assert tube_lines(run(*command)) == ["tube one: ready 1 (…s), delayed 0, reserved 0, buried 0"]


def test_listing_moves_nothing(run: Run, bury: Bury, client) -> None:
    numbers = [bury() for _ in range(3)]
    before = [client.stats_job(number) | {"age": 0} for number in numbers]

    run("list")

    assert [client.stats_job(number) | {"age": 0} for number in numbers] == before
    assert client.stats()["current-jobs-ready"] == 0


@pytest.mark.kills
def test_what_was_buried_before_a_restart_is_listed(
    run: Run, bury: Bury, beanstalkd: OwnServer, client
) -> None:
    number = bury()
    bury()
    beanstalkd.kill()
    beanstalkd.start()

    lines = run("list").stdout.splitlines()

    assert len(lines) == 2
    assert lines[0].startswith(f"one {number} ")


def test_a_job_that_is_kicked_while_it_is_looked_for_is_not_looked_for_longer(beanstalkd, bury: Bury) -> None:
    gone, kept = bury(), bury()
    jobs = BuriedJobs(("127.0.0.1", beanstalkd.port))
    get = jobs.get
    jobs.get = lambda number: jobs._client.kick_job(gone) if number == gone else get(number)

    assert [job.id for job in jobs.find()] == [kept]
    jobs.close()


def test_a_kicked_job_is_ready_again_and_the_others_are_not(run: Run, bury: Bury, client) -> None:
    kicked, kept = bury(), bury()

    assert run("kick", kicked).returncode == 0
    assert (state(client, kicked), state(client, kept)) == ("ready", "buried")


def test_a_deleted_job_is_gone_and_the_others_are_not(run: Run, bury: Bury, client) -> None:
    deleted, kept = bury(), bury()

    assert run("delete", deleted).returncode == 0
    assert state(client, kept) == "buried"
    with pytest.raises(greenstalk.NotFoundError):
        client.stats_job(deleted)


@pytest.mark.parametrize("command", ["kick", "delete"])
def test_all_of_a_tube_are_all_that_are_buried_in_it(run: Run, bury: Bury, client, command: str) -> None:
    for tube in ("one", "one", "two"):
        bury(tube=tube)
    client.use("one")
    client.put(READABLE, delay=3600)

    assert len(run(command, "--all", "--tube", "one").stdout.splitlines()) == 2
    assert client.stats()["current-jobs-buried"] == 1
    assert client.stats()["current-jobs-delayed"] == 1


def test_a_number_that_is_not_buried_stops_the_whole_command(run: Run, bury: Bury, client) -> None:
    number = bury()
    ready = client.put(READABLE)

    refused = run("delete", number, ready, 10**9)

    assert (refused.returncode, refused.stderr) == (1, f"not buried: {ready} 1000000000\n")
    assert (state(client, number), state(client, ready)) == ("buried", "ready")


def test_a_number_of_another_tube_is_not_touched(run: Run, bury: Bury, client) -> None:
    number = bury(tube="one")

    assert run("delete", number, "--tube", "two").returncode == 1
    assert state(client, number) == "buried"


@pytest.mark.parametrize("arguments", [["list"], ["list", "--tube", "none"], ["kick", "--all"]])
def test_that_there_is_none_is_said(run: Run, arguments: list[str]) -> None:
    none = run(*arguments)

    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no job is buried\n")


def test_a_beanstalkd_that_is_away_is_said_in_one_line(run: Run) -> None:
    away = run("list", port=server_processes.free_port())

    assert away.returncode == 1
    assert away.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["other"], ["kick"], ["delete", "x"], ["kick", "1", "--all"], ["list", "1"]]
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


@pytest.fixture
def other(own: Own, bury: Bury, beanstalkd: OwnServer, monkeypatch: pytest.MonkeyPatch) -> OwnServer:
    """A second server of the settings. Both have a job 1 that is buried."""
    other = own(server_processes.beanstalkd)
    other.start()
    bury()
    with greenstalk.Client(("127.0.0.1", other.port), encoding=None, use="two", watch="two") as client:
        client.put(READABLE)
        client.bury(client.reserve(timeout=0))
    monkeypatch.setenv("BEANSTALKD_HOST", f"127.0.0.1,localhost:{other.port}")
    return other


def test_jobs_of_several_servers_are_listed_with_their_server(
    run: Run, beanstalkd: OwnServer, other: OwnServer
) -> None:
    listed = run("list")

    places = [f"127.0.0.1:{beanstalkd.port}", f"localhost:{other.port}"]
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        ["one", f"{places[0]}/1"],
        ["two", f"{places[1]}/1"],
    ]
    assert [line.split(": ")[0] for line in listed.stderr.splitlines()] == [
        f"{places[0]} tube one",
        f"{places[1]} tube two",
    ]


def test_a_number_of_one_of_several_servers_is_kicked_there_alone(
    run: Run, client: greenstalk.Client[bytes], other: OwnServer
) -> None:
    assert run("kick", f"localhost:{other.port}/1").returncode == 0

    assert state(client, 1) == "buried"
    with greenstalk.Client(("127.0.0.1", other.port), encoding=None) as there:
        assert state(there, 1) == "ready"


@pytest.mark.parametrize("number", ["1", "elsewhere:11300/1"])
def test_a_number_that_may_be_any_servers_is_refused(run: Run, client, other: OwnServer, number: str) -> None:
    refused = run("delete", number, f"localhost:{other.port}/1")

    assert (refused.returncode, refused.stderr) == (1, f"not listed so: {number}\n")
    assert len(run("list").stdout.splitlines()) == 2


@pytest.mark.kills
def test_all_are_kicked_on_the_servers_that_are_there(run: Run, client, other: OwnServer) -> None:
    other.kill()

    kicked = run("kick", "--all")

    assert (kicked.returncode, len(kicked.stdout.splitlines())) == (1, 1)
    assert kicked.stderr.startswith(f"beanstalkd at localhost:{other.port}: ")
    assert state(client, 1) == "ready"


@pytest.mark.kills
def test_nothing_is_kicked_while_a_server_that_is_named_is_away(
    run: Run, beanstalkd: OwnServer, client, other: OwnServer
) -> None:
    other.kill()

    assert run("kick", f"127.0.0.1:{beanstalkd.port}/1", f"localhost:{other.port}/1").returncode == 1
    assert state(client, 1) == "buried"


@pytest.mark.starts
def test_it_says_what_it_can_do() -> None:
    command = [sys.executable, "-m", "common.jobs", "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout

    assert all(name in said for name in ("list", "kick", "delete"))
