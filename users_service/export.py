"""Write everything of one account, but for polls and votes, as one JSON file.

The command calls the services as the user: it signs tokens with JWT_SECRET. It writes what it has read at
once, so an account may be of any size. A file is there when it is complete, or not at all.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import httpx

from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.errors import Problem, Unavailable
from common.settings import Settings
from common.tokens import Tokens
from users_service import arguments, errors

# For each call: a service may restart meanwhile, and the registry's snapshot comes a moment after the start.
PATIENCE_SECONDS = 5
RETRY_SECONDS = 0.2
# The tokens are for one call each. A new password revokes none of them while they last: they are of the last
# generation that there can be.
TOKEN_LIFETIME = timedelta(minutes=2)
LAST_GENERATION = 2**31 - 1

# What is listed, by which service, and where.
LISTS = {
    "followees": ("users", "/users/{username}/followees?limit=7500"),
    "followers": ("users", "/users/{username}/followers?limit=7500"),
    "blocks": ("users", "/users/{username}/blocks?limit=7500"),
    "mutes": ("users", "/users/{username}/mutes?limit=7500"),
    "posts": ("timelines", "/posts/{username}?limit=100"),
    "pins": ("timelines", "/posts/{username}?pinned=true"),
    "bookmarks": ("timelines", "/bookmarks?limit=100"),
    "notifications": ("timelines", "/notifications?limit=100"),
    "likes": ("likes", "/users/{username}/likes?limit=100"),
}
VERSIONS = "/posts/id/{id}/versions?limit=100"


class Account:
    """What the services have of a user. All raises NotFound, and Unavailable."""

    def __init__(self, username: str, services: Callable[[str], ServiceClient], tokens: Tokens) -> None:
        self._username = username
        self._services = services
        self._tokens = tokens

    def profile(self) -> Any:
        """As its owner sees it."""
        return self._get("users", f"/users/{self._username}").json()

    def lists(self) -> Iterator[tuple[str, Iterator[Any]]]:
        """The name of each list, and its items, which are read as they are taken."""
        for name, (service, path) in LISTS.items():
            items = self._items(service, path.format(username=self._username))
            yield name, map(self._with_versions, items) if name == "posts" else items

    def _with_versions(self, post: Any) -> Any:
        is_edited = post["edited_at"] and not post.get("repost_of")
        versions = self._items("timelines", VERSIONS.format(**post)) if is_edited else ()
        return post | {"versions": list(versions)}

    def _items(self, service: str, path: str) -> Iterator[Any]:
        """Those of all pages of a list."""
        following: str | None = path
        while following:
            response = self._get(service, following)
            yield from response.json()
            following = response.links.get("next", {}).get("url")

    def _get(self, service: str, path: str) -> httpx.Response:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            token = self._tokens.issue(self._username, LAST_GENERATION)
            try:
                response = self._services(service).get(path, headers={"Authorization": f"Bearer {token}"})
            except Unavailable:
                if time.monotonic() > until:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                return self._checked(response, service, path)

    def _checked(self, response: httpx.Response, service: str, path: str) -> httpx.Response:
        if response.status_code == 404:
            raise errors.user_not_found(self._username)
        if response.status_code != 200:
            detail = f"The {service} service answers {response.status_code} to GET {path}."
            raise Unavailable("unexpected_answer", detail)
        return response


def write(profile: object, lists: Iterable[tuple[str, Iterable[object]]], out: TextIO) -> None:
    """Write one JSON object, an item a line."""
    out.write(f'{{"profile": {_json(profile)}')
    for name, items in lists:
        out.write(f',\n"{name}": [')
        out.writelines(f"{',' if number else ''}\n{_json(item)}" for number, item in enumerate(items))
        out.write("]")
    out.write("}\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A file that only its owner may read, and that appears when it is complete."""
    descriptor, name = tempfile.mkstemp(".part", f"{path.name}.", path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            yield out
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def export(username: str, settings: Settings, path: Path | None) -> None:
    """Write the account to this file, or to standard output. Raises NotFound, Unavailable, OSError."""
    with ExitStack() as stack:
        directory = stack.enter_context(Directory(settings.registry_url))
        tokens = Tokens(settings.jwt_secret, settings.jwt_alg, TOKEN_LIFETIME)

        @cache
        def service(name: str) -> ServiceClient:
            return stack.enter_context(closing(ServiceClient(name, directory, tokens, "export")))

        account = Account(username, service, tokens)
        profile = account.profile()
        out = stack.enter_context(whole_file(path)) if path else sys.stdout
        write(profile, account.lists(), out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m users_service.export", description=__doc__)
    parser.add_argument("username", type=arguments.username)
    parser.add_argument("--out", type=Path, metavar="FILE", help="standard output, if it is left out")
    options = parser.parse_args()
    try:
        export(options.username, Settings.read(), options.out)
    except Problem as exc:
        sys.exit(exc.detail)
    except OSError as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
