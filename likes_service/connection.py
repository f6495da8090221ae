"""The connection to Redis: what its errors mean, and new connections where it may have moved."""

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis
from redis.exceptions import NoPermissionError, NoScriptError
from redis.sentinel import MasterNotFoundError

from common.circuit_breaker import CircuitBreaker
from common.errors import CannotServe, CredentialsRejected
from common.telemetry import metrics
from common.telemetry.instruments import Readings
from common.telemetry.logging import RepeatedWarning

logger = logging.getLogger(__name__)

# OpenTelemetry's name.
SYSTEM = "redis"
UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)

CLUSTER = "is a node of a cluster, which REDIS_URL must name as redis+cluster://"
# Why Redis cannot serve, by what its reply has in it, also where a script meets it.
REASONS = {
    "READONLY": "is a read-only replica",
    "MASTERDOWN": "is a replica without its master",
    "LOADING": "is loading its data",
    "OOM": "is out of memory",
    "MISCONF": "cannot write to its disk",
    "NOREPLICAS": "has too few replicas",
    "BUSY": "is busy with a script",
    "UNKILLABLE": "is busy with a script",
    "max number of clients": "has as many clients as it takes",
    "CLUSTERDOWN": CLUSTER,
    "MOVED": CLUSTER,
    "ASK": CLUSTER,
    "TRYAGAIN": CLUSTER,
    "CROSSSLOT": CLUSTER,
    "LIKESMOVED": "has handed its likes to a cluster, which REDIS_URL must name",
}
REASON = re.compile(rf"\b({'|'.join(REASONS)})\b")

# Redis's words for it in a script, and for NOAUTH to a command of more than ten arguments.
REJECTED = re.compile(r"\bNOAUTH\b|\bNOPERM\b|The user executing the script can't|unauthenticated multibulk")

# A mistake of our scripts, or a key that another program has overwritten: waiting does not help.
MISTAKE = re.compile(
    r"\bWRONGTYPE\b|(?<!@)user_script:\d+: |compiling script|(?i:wrong number of arg)|not a valid"
    r"|syntax error"
)


Command = Sequence[Any]


class Commands(Protocol):
    """What a single Redis and a cluster have in common."""

    def execute_command(self, *command: Any) -> Any: ...

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """The responses to all of them, sent together; an error reply is in its command's place."""
        ...

    def masters(self) -> Sequence["RedisClient"]: ...

    def close(self) -> None: ...


class Script:
    """A Lua script, sent whole only where it is not known yet."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], values: Sequence[Any] = ()) -> Command:
        return ("EVALSHA", self._sha, len(keys), *keys, *values)

    def run(self, client: Commands, keys: Sequence[str], values: Sequence[Any] = ()) -> Any:
        """Nothing has run where the script is not known: so it may be sent again, whole."""
        try:
            return client.execute_command(*self.command(keys, values))
        except NoScriptError:
            return client.execute_command("EVAL", self._text, len(keys), *keys, *values)

    def run_all(self, client: Commands, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """The results of several calls. One that meets an error is made again: it may be made twice."""
        if len(calls) == 1:
            return [self.run(client, *calls[0])]
        found = client.execute_all([self.command(*call) for call in calls])
        return [
            self.run(client, *call) if isinstance(result, redis.ResponseError) else result
            for call, result in zip(calls, found, strict=True)
        ]


class RedisClient(redis.Redis):
    """Raises CannotServe and CredentialsRejected for Redis's error replies, and CircuitOpen after a hang.

    A name may lead to another server by now: whatever the state that a server
    cannot serve in, the next command goes over a new connection.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._breaker = CircuitBreaker("Redis")
        self._warn = RepeatedWarning(logger)
        metrics.pool_connections.read_from(self._read_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        call = super().execute_command
        return self._guarded(str(args[0]).upper(), call, *args, **options)

    def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """The responses to all of them, in one round trip; an error reply is in its command's place."""
        pipeline = self.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own
        found: list[Any] = self._guarded("PIPELINE", pipeline.execute, raise_on_error=False)
        return found

    def masters(self) -> Sequence["RedisClient"]:
        return [self]

    def _guarded(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._breaker.raise_if_open()
        try:
            with metrics.store_operations.time(SYSTEM, name, errors=UNAVAILABLE):
                return call(*args, **options)
        except redis.TimeoutError:
            self._breaker.trip()
            self._reconnect()
            raise
        except MasterNotFoundError as exc:
            self._breaker.trip()
            raise CannotServe("has no master that a sentinel knows") from exc
        except (redis.ConnectionError, redis.ResponseError, redis.InvalidResponse) as exc:
            if (error := self._error_for(exc)) is None:
                raise
            if isinstance(error, CannotServe):
                self._reconnect()
            raise error from exc

    def _error_for(self, exc: redis.RedisError) -> Exception | None:
        """Our exception for Redis's; None for one that says enough itself."""
        # redis-py takes the codes that it knows off the text.
        text = f"{getattr(exc, 'status_code', None) or ''} {exc}".strip()
        if isinstance(exc, redis.AuthenticationError | NoPermissionError) or REJECTED.search(text):
            return self._rejection(exc)
        if found := REASON.search(text):
            return CannotServe(REASONS[found[1]])
        # After NOSCRIPT, `Script.run` sends the script whole.
        if isinstance(exc, redis.ConnectionError | NoScriptError) or MISTAKE.search(text):
            return None
        # From a proxy without a Redis behind it, for example. It may name addresses: only the log has it.
        self._warn(f"Redis responds: {text}")
        return CannotServe("responds with an error, which is in the log")

    def _reconnect(self) -> None:
        self.connection_pool.disconnect(inuse_connections=False)
        # Those in use are replaced when their command is done.
        self.connection_pool.update_active_connections_for_reconnect()

    def _rejection(self, exc: Exception) -> CredentialsRejected:
        url = self.get_connection_kwargs()
        master = getattr(self.connection_pool, "service_name", None)
        place = master or url.get("path") or f"{url.get('host')}:{url.get('port')}"
        user = url.get("username") or "default"
        return CredentialsRejected(f"Redis at {place} rejects user {user}: correct REDIS_URL ({exc})")

    def _read_pool(self) -> Readings:
        return [
            ((SYSTEM, str(attributes["db.client.connection.state"])), count)
            for count, attributes in self.connection_pool.get_connection_count()
        ]
