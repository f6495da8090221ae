"""The timelines service's calls to other services."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from common.discovery.client import ServiceClient
from common.discovery.identity import is_unknown_route
from common.errors import NotFound, Unavailable
from common.fields import KnownUsername, Username
from timelines_service import errors

MAX_FOLLOWEES = 7500

# Some 40 MB at most. A frequent reader of a home timeline is among the last few thousand readers.
MAX_LISTS = 10_000
MAX_NAMES = 500_000

# What the users service takes in one call.
MAX_BATCH = 100
EXISTING_SECONDS = 0.5


class User(BaseModel):
    """A user, as far as a mention needs one."""

    username: Username


USERS: TypeAdapter[list[User]] = TypeAdapter(list[User])
NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Username, ...])
VERSIONS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])
Body = TypeVar("Body")


class HomeSources(BaseModel):
    """Whose posts are in a user's home timeline, and who is hidden from it, also where others repost them.

    The user and each of those `blocked` may not reply to each other.
    """

    model_config = ConfigDict(frozen=True)

    followees: tuple[Username, ...]
    hidden: tuple[Username, ...] = ()
    blocked: tuple[Username, ...] = ()
    # Another one after each change; empty from a users service of the last version.
    version: str = ""

    @property
    def shown(self) -> frozenset[str]:
        """Those followees who are not hidden."""
        return frozenset(self.followees).difference(self.hidden)


NO_SOURCES = HomeSources(followees=())


@dataclass(frozen=True)
class CachedSources:
    """Sources, and their ETag at the users service."""

    etag: str
    sources: HomeSources

    @property
    def names(self) -> int:
        return sum(map(len, (self.sources.followees, self.sources.hidden, self.sources.blocked)))


class SourcesCache:
    """The sources of the most recent readers, as many as fit. Threads may share it."""

    def __init__(self, max_lists: int = MAX_LISTS, max_names: int = MAX_NAMES) -> None:
        self._max_lists = max_lists
        self._max_names = max_names
        self._lists: OrderedDict[str, CachedSources] = OrderedDict()
        self._names = 0
        self._lock = Lock()

    def get(self, username: str) -> CachedSources | None:
        with self._lock:
            if username in self._lists:
                self._lists.move_to_end(username)
            return self._lists.get(username)

    def put(self, username: str, cached: CachedSources) -> None:
        with self._lock:
            self._drop(username)
            self._lists[username] = cached
            self._names += cached.names
            while self._names > self._max_names or len(self._lists) > self._max_lists:
                self._drop(next(iter(self._lists)))

    def _drop(self, username: str) -> None:
        dropped = self._lists.pop(username, None)
        self._names -= dropped.names if dropped else 0


class UsersClient:
    """The users service, as far as timelines need it. Threads may share it."""

    def __init__(self, users: ServiceClient, cache: SourcesCache | None = None) -> None:
        self._users = users
        self._cache = cache or SourcesCache()

    def exists(self, username: str) -> bool:
        """Whether there is such a user. Raises Unavailable."""
        response = self._users.get(f"/users/{username}")
        if response.status_code not in (200, 404):
            raise _unexpected(response)
        return response.status_code == 200

    def existing(self, usernames: Sequence[str]) -> list[str]:
        """Those of these users who exist. Raises Unavailable, soon: a new post waits for this."""
        found: list[str] = []
        for batch in _batches(usernames):
            response = self._users.get("/users", {"username": batch}, within_seconds=EXISTING_SECONDS)
            found.extend(user.username for user in _parse(USERS.validate_json, response))
        return found

    def home_sources(self, username: str) -> HomeSources:
        """What a user's home timeline is made of now. Raises NotFound, Unavailable."""
        # Requested every time, so that a follow shows at once; unchanged sources cost a 304.
        known = self._cache.get(username)
        headers = {"If-None-Match": known.etag} if known else None
        response = self._users.get(f"/users/{username}/home-sources", headers=headers, is_new=True)
        if known and response.status_code == 304:
            return known.sources
        if is_unknown_route(response.status_code, response.content):
            return self._followees_alone(username)
        sources = _read(HomeSources.model_validate_json, response, username)
        if etag := response.headers.get("etag"):
            self._cache.put(username, CachedSources(etag, sources))
        return sources

    def last_sources(self, username: str) -> HomeSources:
        """The same, of an earlier call while the users service is away. Raises Unavailable without one."""
        try:
            return self.home_sources(username)
        except NotFound:
            return NO_SOURCES
        except Unavailable:
            if known := self._cache.get(username):
                return known.sources
            raise

    def home_versions(self, usernames: Sequence[str]) -> dict[str, str]:
        """The versions that the home sources of these users have now. Raises Unavailable."""
        versions: dict[str, str] = {}
        for batch in _batches(usernames):
            response = self._users.get("/home-sources/versions", {"username": batch})
            versions |= _parse(VERSIONS.validate_json, response)
        return versions

    def _followees_alone(self, username: str) -> HomeSources:
        """From a users service of the last version. Not cached: versions do not mix for long."""
        response = self._users.get(f"/users/{username}/followees", {"limit": str(MAX_FOLLOWEES)})
        return HomeSources.model_construct(followees=_read(NAMES.validate_json, response, username))


class _Poll(BaseModel):
    created_by: KnownUsername


class PollsClient:
    """The polls service, as far as posts need it. Threads may share it."""

    def __init__(self, polls: ServiceClient) -> None:
        self._polls = polls

    def author(self, poll_id: UUID) -> str:
        """The user whose poll it is. Raises NotFound, Unavailable."""
        response = self._polls.get(f"/polls/{poll_id}")
        if response.status_code == 404:
            raise errors.poll_not_found()
        return _parse(_Poll.model_validate_json, response, "polls").created_by


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[first : first + MAX_BATCH] for first in range(0, len(names), MAX_BATCH))


def _read(read: Callable[[bytes], Body], response: httpx.Response, username: str) -> Body:
    if response.status_code == 404:
        raise errors.user_not_found(username)
    return _parse(read, response)


def _parse(read: Callable[[bytes], Body], response: httpx.Response, service: str = "users") -> Body:
    if response.status_code != 200:
        raise _unexpected(response, service)
    try:
        return read(response.content)
    except ValidationError as exc:
        raise _unexpected(response, service) from exc


def _unexpected(response: httpx.Response, service: str = "users") -> Unavailable:
    return Unavailable(
        f"{service}_unavailable", f"The {service} service answered {response.status_code} out of place."
    )
