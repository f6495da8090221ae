"""Where Redis is: at an address, wherever sentinels say that the master is, or in the nodes of a cluster."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import redis
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

REDIS_PORT = 6379
SENTINEL_PORT = 26379
# RFC 3986, appendix B.
URL = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
MASTER = re.compile(r"/([^/\s]+)(?:/(\d+))?")

Client = TypeVar("Client")
Address = tuple[str, int]


@dataclass(frozen=True)
class SentinelUrl:
    """`redis+sentinel://user:password@host:port,host:port/master-name/database`, `rediss+sentinel` with TLS.

    User and password are Redis's. Those of the sentinels, if they have any, are
    in the query: `?sentinel_username=…&sentinel_password=…`.
    """

    sentinels: tuple[Address, ...]
    master: str
    to_redis: dict[str, Any]
    to_sentinels: dict[str, Any]

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError."""
        parts = _split(url)
        account, _, nodes = parts.netloc.rpartition("@")
        found = MASTER.fullmatch(parts.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        if not found or parts.fragment or query.keys() - {"sentinel_username", "sentinel_password"}:
            raise ValueError("it has no master's name, or parts that no such URL has")
        tls = {"ssl": True} if parts.scheme == "rediss+sentinel" else {}
        return cls(
            _addresses(nodes, SENTINEL_PORT),
            unquote(found[1]),
            tls | {"db": int(found[2] or 0)} | _account(account),
            tls | _credentials(query.get("sentinel_username"), query.get("sentinel_password")),
        )


@dataclass(frozen=True)
class ClusterUrl:
    """`redis+cluster://user:password@host:port,host:port`, `rediss+cluster` with TLS.

    The nodes are some of the cluster's: each knows all others.
    """

    nodes: tuple[Address, ...]
    options: dict[str, Any]

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError."""
        parts = _split(url)
        account, _, nodes = parts.netloc.rpartition("@")
        # There is one database in a cluster.
        if parts.path not in ("", "/", "/0") or parts.query or parts.fragment:
            raise ValueError("it has parts that no such URL has")
        tls = {"ssl": True} if parts.scheme == "rediss+cluster" else {}
        return cls(_addresses(nodes, REDIS_PORT), tls | _account(account))


def _split(url: str) -> SplitResult:
    """As urlsplit, which takes brackets behind a first host for a mistake in newer versions of Python."""
    found = URL.fullmatch(url)
    assert found, "every text has this form"
    scheme, *rest = (part or "" for part in found.groups())
    return SplitResult(scheme.lower(), *rest)


def _addresses(nodes: str, port: int) -> tuple[Address, ...]:
    return tuple(_address(node, port) for node in nodes.split(","))


def _address(node: str, port: int) -> Address:
    parts = urlsplit(f"//{node}")
    if not parts.hostname or parts.port == 0 or parts.username is not None:
        raise ValueError("a node is a host and a port")
    return parts.hostname, parts.port or port


def _account(account: str) -> dict[str, Any]:
    username, _, password = account.partition(":")
    return _credentials(unquote(username), unquote(password))


def _credentials(username: str | None, password: str | None) -> dict[str, Any]:
    given = {"username": username, "password": password}
    return {name: value for name, value in given.items() if value}


class _Fixed(list[Any]):
    """redis-py moves the sentinel that responds to the front; two calls at once would lose another."""

    def __setitem__(self, *_: object) -> None:
        pass


def connect(kind: type[Client], sentinel_kind: Any, url: str, **options: Any) -> Client:
    """A client of redis-py, or of its asyncio half, for a URL that is no cluster's; nothing is sent yet.

    The sentinels together take as long to fail as Redis itself, `options["socket_timeout"]` seconds.
    """
    if not _is_of_sentinels(url):
        client: Client = kind.from_url(url, **options)  # type: ignore[attr-defined]  # they share no type
        return client
    place = SentinelUrl.parse(url)
    seconds = options["socket_timeout"] / len(place.sentinels)
    timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": options["retry"]}
    sentinel = sentinel_kind(place.sentinels, sentinel_kwargs=timeouts | place.to_sentinels)
    sentinel.sentinels = _Fixed(sentinel.sentinels)
    master: Client = sentinel.master_for(place.master, redis_class=kind, **place.to_redis, **options)
    return master


def is_of_cluster(url: str) -> bool:
    return _split(url).scheme in ("redis+cluster", "rediss+cluster")


def _is_of_sentinels(url: str) -> bool:
    return _split(url).scheme in ("redis+sentinel", "rediss+sentinel")


def _is_usable(url: str) -> bool:
    try:
        if _is_of_sentinels(url):
            SentinelUrl.parse(url)
            return True
        if is_of_cluster(url):
            ClusterUrl.parse(url)
            return True
        parts = urlsplit(url)
        is_place = parts.path if parts.scheme == "unix" else parts.hostname and "," not in parts.hostname
        # A connection that is never opened: redis-py finds out what is wrong with the options in the query.
        redis.ConnectionPool.from_url(url).make_connection()
        return bool(is_place) and parts.port != 0
    except (ValueError, TypeError, redis.RedisError):
        return False


def _check(url: str) -> str:
    if url and (re.search(r"\s", url) or not _is_usable(url)):
        raise PydanticCustomError(
            "malformed_url",
            "must be a URL like redis://host:port/0, redis+sentinel://host:port,host:port/master-name/0"
            " or redis+cluster://host:port,host:port",
        )
    return url


# Nothing, or a URL of a Redis. An error never repeats the URL: it may hold a password.
RedisUrl = Annotated[str, AfterValidator(_check)]
