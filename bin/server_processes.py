"""The backing servers: found, started on loopback with their data in a folder, stopped cleanly."""

import ctypes
import hashlib
import mailbox
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import boto3
import greenstalk
import psycopg2
import redis as redis_client
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

HOST = "127.0.0.1"
VENV = Path(sys.prefix)
START_SECONDS = 60
STOP_SECONDS = 10
PR_SET_PDEATHSIG = 1
# In any order. Linux and macOS take higher ones for outgoing connections, so these stay free. Each process of
# pytest-xdist has ports of its own: none sees what another has been given, and does not use yet.
_part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_own_ports = range(20_000 + _part, 32_000, _parts)
_ports = iter(random.sample(_own_ports, len(_own_ports)))


class NotStarted(Exception):
    """A server cannot be started, or did not answer in time."""


class Server:
    """A backing server that this process has started."""

    def __init__(
        self,
        name: str,
        port: int,
        data: Path,
        process: subprocess.Popen[bytes],
        stop_signal: signal.Signals,
    ) -> None:
        self.name = name
        self.port = port
        self.data = data
        self._process = process
        self._stop_signal = stop_signal

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop it as it likes to be stopped, and wait; safe to call twice."""
        if self.is_running():
            self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def postgres(
    data: Path,
    port: int,
    user: str = "postgres",
    password: str = "postgres",
    durable: bool = True,
    primary: int | None = None,
) -> Server:
    """PostgreSQL, which refuses to run as root: then it runs as `postgres` or `nobody`.

    With the port of a primary, it is made as a streaming standby of that.
    """
    initdb, server = _binary("initdb"), _binary("postgres")
    account = _unprivileged() if os.geteuid() == 0 else None
    if account:
        data = _reachable(data, account)
        data.mkdir(parents=True, exist_ok=True)
        os.chown(data, account.pw_uid, account.pw_gid)
    cluster = data / "cluster"
    if not (cluster / "PG_VERSION").exists():
        if primary is None:
            _initdb(initdb, cluster, user, password, account)
        else:
            _copy(primary, cluster, user, password, account)
    options = ["-p", str(port), "-h", HOST, "-k", str(data)]
    if not durable:
        options += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    return _start(
        "postgres",
        port,
        [*_as(account), server, "-D", str(cluster), *options],
        data,
        lambda: psycopg2.connect(
            host=HOST, port=port, user=user, password=password, dbname="postgres", connect_timeout=2
        ).close(),
        signal.SIGINT,  # a fast shutdown; SIGTERM would wait for every client to leave
    )


def redis(data: Path, port: int, durable: bool = True, options: Sequence[str] = ()) -> Server:
    command = [_binary("redis-server"), "--bind", HOST, "--port", str(port), "--dir", str(data), "--save", ""]
    command += options
    if durable:
        command += ["--appendonly", "yes", "--appendfsync", "always"]

    def answers() -> None:
        with redis_client.Redis(host=HOST, port=port, socket_timeout=1) as client:
            client.ping()

    return _start("redis", port, command, data, answers)


def beanstalkd(data: Path, port: int, durable: bool = True, options: tuple[str, ...] = ()) -> Server:
    command = [_binary("beanstalkd"), "-l", HOST, "-p", str(port), *options]
    if durable:
        command += ["-b", str(data), "-f", "0"]  # a job that was accepted is on the disk
    return _start("beanstalkd", port, command, data, lambda: greenstalk.Client((HOST, port)).close())


def dynamodb(data: Path, port: int) -> Server:
    """ministack, from a virtual environment of its own; what it holds survives a stop, not a kill."""
    environment = {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(data),
        "SERVICES": "dynamodb",
    }
    command = [str(VENV / "ministack" / "bin" / "ministack")]
    return _start(
        "dynamodb", port, command, data, lambda: list_tables(f"http://{HOST}:{port}"), environment=environment
    )


def mail(data: Path, port: int, handler: str = "aiosmtpd.handlers.Mailbox") -> Server:
    """Catches every mail into a Maildir: a file each, below `new`."""
    mailbox.Maildir(data)
    command = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"{HOST}:{port}"]
    command += ["-c", handler, str(data)]
    return _start("mail", port, command, data, lambda: socket.create_connection((HOST, port), 1).close())


STARTERS = (postgres, redis, beanstalkd, dynamodb, mail)


def free_port() -> int:
    """A port on which nothing listens, and which this process has not been given before."""
    return next(port for port in _ports if is_free(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def list_tables(url: str) -> None:
    """Raises unless a DynamoDB answers there, asked directly whatever `http_proxy` says."""
    config = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}, proxies={})
    boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="dummy",
        aws_secret_access_key="dummy",
        config=config,
    ).list_tables()


NOT_YET = (OSError, psycopg2.OperationalError, redis_client.RedisError, BotoCoreError, ClientError)


def _start(
    name: str,
    port: int,
    command: Sequence[str],
    data: Path,
    answers: Callable[[], object],
    stop_signal: signal.Signals = signal.SIGTERM,
    environment: Mapping[str, str] | None = None,
) -> Server:
    if not is_free(port):
        raise NotStarted(f"port {port}, meant for {name}, is taken by something else")
    data.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A Ctrl-C is for whoever started us, who stops everything in order.
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  no threads run yet where this is called
        )
    server = Server(name, port, data, process, stop_signal)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            answers()
        except NOT_YET as exc:
            if not server.is_running() or time.monotonic() > deadline:
                server.stop()
                raise NotStarted(f"{name} does not answer on port {port}: see {log}") from exc
            time.sleep(0.05)
        else:
            return server


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _binary(name: str) -> str:
    """Where a server's program is: installed, else what bin/setup has put into the virtual environment."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin"]
    # Debian and Homebrew both keep PostgreSQL's programs off the PATH.
    kegs = [
        keg for opt in ("/opt/homebrew/opt", "/usr/local/opt") for keg in Path(opt).glob("postgresql*/bin")
    ]
    debians = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    ours = (VENV / "servers").glob("**/bin")
    for folder in (*map(str, reversed(debians)), *folders, *map(str, kegs), *map(str, ours)):
        if found := shutil.which(name, path=folder):
            return found
    raise NotStarted(f"{name} is not installed: bin/setup installs it")


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as(account: pwd.struct_passwd | None) -> list[str]:
    if account is None:
        return []
    # Changing the user clears the wish to end with the parent, so it is repeated here.
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--pdeathsig=INT", "--"]


def _reachable(data: Path, account: pwd.struct_passwd) -> Path:
    """The folder itself, or one elsewhere if that user cannot get to it: below /root, say."""
    closest = next(path for path in (data, *data.parents) if path.exists())
    if subprocess.run([*_as(account), "test", "-x", str(closest)], check=False).returncode == 0:
        return data
    place = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:12]
    return Path("/var/lib/microblog") / f"{data.name}-{place}"


def _initdb(initdb: str, cluster: Path, user: str, password: str, account: pwd.struct_passwd | None) -> None:
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(password)
        secret.flush()
        if account:
            os.chown(secret.name, account.pw_uid, account.pw_gid)
        command = [*_as(account), initdb, "-D", str(cluster), "-U", user, f"--pwfile={secret.name}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        made = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if made.returncode != 0:
        shutil.rmtree(cluster, ignore_errors=True)
        raise NotStarted(f"initdb failed: {made.stderr.strip()}")


def _copy(primary: int, cluster: Path, user: str, password: str, account: pwd.struct_passwd | None) -> None:
    """A standby: a copy of the primary, which then follows it."""
    command = [*_as(account), _binary("pg_basebackup"), "-h", HOST, "-p", str(primary), "-U", user]
    command += ["-D", str(cluster), "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    environment = os.environ | {"PGPASSWORD": password}
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)
    if made.returncode != 0:
        shutil.rmtree(cluster, ignore_errors=True)
        raise NotStarted(f"pg_basebackup failed: {made.stderr.strip()}")
