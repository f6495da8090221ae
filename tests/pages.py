"""The pages of a list, as their links lead from one to the next."""

from collections.abc import Iterator
from typing import Any

import httpx2


def pages(client: httpx2.Client, path: str, rel: str = "next", **options: Any) -> Iterator[httpx2.Response]:
    """The response from `path`, and from each link with this relation; `options` go with each GET."""
    target: str | None = path
    while target:
        page = client.get(target, **options)
        yield page
        target = page.links.get(rel, {}).get("url")
