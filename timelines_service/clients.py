"""What the timelines service asks others."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import httpx
from pydantic import TypeAdapter, ValidationError

from common.discovery.client import ServiceClient
from common.errors import NotFound, Unavailable
from common.fields import Username

MAX_FOLLOWEES = 7500

# Some 40 MB at most: whoever reads a home timeline often is among the last few thousand readers.
MAX_LISTS = 10_000
MAX_NAMES = 500_000

NAMES: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Username, ...])


@dataclass(frozen=True)
class Followees:
    """Whom a user follows, and the tag by which the users service knows this list again."""

    usernames: tuple[str, ...]
    etag: str


class RecentLists:
    """The lists of those who asked last, as many as fit. Threads may share it."""

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

    def keep(self, username: str, followees: Followees) -> None:
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

    def __init__(self, users: ServiceClient, recent: RecentLists | None = None) -> None:
        self._users = users
        self._recent = recent or RecentLists()

    def start(self) -> None:
        """Nothing is connected before it is asked."""

    def stop(self) -> None:
        self._users.close()

    def exists(self, username: str) -> bool:
        """Whether there is such a user. Raises Unavailable when that cannot be told."""
        answer = self._users.get(f"/users/{username}")
        if answer.status_code not in (200, 404):
            raise _unexpected(answer)
        return answer.status_code == 200

    def followees(self, username: str) -> tuple[str, ...]:
        """Whom a user follows now. Raises NotFound, and Unavailable when that cannot be told."""
        # Asked every time, so that a follow is seen at once; an unchanged list costs a 304.
        known = self._recent.get(username)
        answer = self._users.get(
            f"/users/{username}/followees",
            params={"limit": str(MAX_FOLLOWEES)},
            headers={"If-None-Match": known.etag} if known else None,
        )
        if known and answer.status_code == 304:
            return known.usernames
        if answer.status_code == 404:
            raise NotFound("user_not_found", f"There is no user {username}.")
        usernames = _read(answer)
        if etag := answer.headers.get("etag"):
            self._recent.keep(username, Followees(usernames, etag))
        return usernames


def _read(answer: httpx.Response) -> tuple[str, ...]:
    if answer.status_code != 200:
        raise _unexpected(answer)
    try:
        return NAMES.validate_json(answer.content)
    except ValidationError as exc:
        raise _unexpected(answer) from exc


def _unexpected(answer: httpx.Response) -> Unavailable:
    return Unavailable("users_unavailable", f"The users service answered {answer.status_code} out of place.")
