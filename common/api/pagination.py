"""Pages of a list, and the link to the next one."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response

Limit = Annotated[int, Query(ge=1, le=100, description="The size of a page.")]

Item = TypeVar("Item")


def paginate(
    found: Sequence[Item], limit: int, last_id: Callable[[Item], object], request: Request, response: Response
) -> Sequence[Item]:
    """The first `limit` of the items found, and a link to the next page if there are more."""
    if len(found) <= limit:
        return found
    shown = found[:limit]
    query = urlencode({"limit": limit, "before": last_id(shown[-1])})
    # A path reference works through the gateway and directly.
    response.headers["Link"] = f'<{request.scope["path"]}?{query}>; rel="next"'
    return shown
