"""The timelines service's calls to other services."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import httpx
from pydantic import TypeAdapter, ValidationError

from common.discovery.client import ServiceClient
from common.errors import Unavailable
from common.fields import Username
from timelines_service import errors

MAX_FOLLOWEES = 7500

# Some 40 MB at most. A frequent reader of a home timeline is among the last few thousand readers.
MAX_LISTS = 10_000
MAX_NAMES = 500_000

NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Username, ...])


@dataclass(frozen=True)
class Followees:
    """Whom a user follows, and the ETag of that list in the users service."""

    usernames: tuple[str, ...]
    etag: str


class FolloweesCache:
    """The lists of the most recent readers, as many as fit. Threads may share it."""

    def __init__(self, max_lists: int = MAX_LISTS, max_names: int = MAX_NAMES) -> None:
        self._max_lists = max_lists
        self._max_names = max_names
        self._lists: OrderedDict[str, Followees] = OrderedDict()
        self._names = 0
        self._lock = Lock()

    def get(self, username: str) -> Followees | None:
        with self._lock:
            if username in self._lists:
                self._lists.move_to_end(username)
            return self._lists.get(username)

    def put(self, username: str, followees: Followees) -> None:
        with self._lock:
            self._drop(username)
            self._lists[username] = followees
            self._names += len(followees.usernames)
            while self._names > self._max_names or len(self._lists) > self._max_lists:
                self._drop(next(iter(self._lists)))

    def _drop(self, username: str) -> None:
        dropped = self._lists.pop(username, None)
        self._names -= len(dropped.usernames) if dropped else 0


class UsersClient:
    """The users service, as far as timelines need it. Threads may share it."""

    def __init__(self, users: ServiceClient, cache: FolloweesCache | None = None) -> None:
        self._users = users
        self._cache = cache or FolloweesCache()

    def exists(self, username: str) -> bool:
        """Whether there is such a user. Raises Unavailable."""
        response = self._users.get(f"/users/{username}")
        if response.status_code not in (200, 404):
            raise _unexpected(response)
        return response.status_code == 200

    def followees(self, username: str) -> tuple[str, ...]:
        """Whom a user follows now. Raises NotFound, Unavailable."""
        # Requested every time, so that a follow shows at once; an unchanged list costs a 304.
        known = self._cache.get(username)
        response = self._users.get(
            f"/users/{username}/followees",
            params={"limit": str(MAX_FOLLOWEES)},
            headers={"If-None-Match": known.etag} if known else None,
        )
        if known and response.status_code == 304:
            return known.usernames
        if response.status_code == 404:
            raise errors.user_not_found(username)
        usernames = _read(response)
        if etag := response.headers.get("etag"):
            self._cache.put(username, Followees(usernames, etag))
        return usernames


def _read(response: httpx.Response) -> tuple[str, ...]:
    if response.status_code != 200:
        raise _unexpected(response)
    try:
        return NAMES.validate_json(response.content)
    except ValidationError as exc:
        raise _unexpected(response) from exc


def _unexpected(response: httpx.Response) -> Unavailable:
    return Unavailable(
        "users_unavailable", f"The users service answered {response.status_code} out of place."
    )
