"""What the routes of the timelines service depend on: the store, the service, the reader, the page."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request, Response

from common.api.auth import OptionalSubject
from common.api.pagination import Item, Limit, cut, link_both_ways
from common.api.routing import from_state
from common.discovery.client import service_unavailable
from common.errors import store_unavailable
from common.fields import Id
from common.tokens import is_service
from timelines_service.post_query import LAST_ID, Found, Page
from timelines_service.service import Timelines
from timelines_service.store import TimelinesStore
from timelines_service.stream_log import MAX_POSITION, POSITION, Position

Before = Annotated[Id | None, Query(description="The last id of the previous page.")]
After = Annotated[Id | None, Query(description="The first id of a page, for newer ones.")]
Seen = Annotated[
    str | None,
    Query(
        pattern=f"^{POSITION.pattern}$",
        max_length=MAX_POSITION,
        description="With `after`, as the link to newer ones has it: they come with those that were stored"
        " since then, but written before. For fifteen minutes.",
    ),
]


async def get_reader(subject: OptionalSubject) -> str | None:
    """The user who reads, if the request has a user's token."""
    return None if subject is None or is_service(subject) else subject


async def get_page(limit: Limit = 20, before: Before = None, after: After = None) -> Page:
    # One more than is shown says whether there are more.
    return Page(limit + 1, before, after)


async def get_page_of_posts(
    limit: Limit = 20, before: Before = None, after: After = None, seen: Seen = None
) -> Page:
    return Page(limit + 1, before, after, Position.parse(seen) if seen else None)


Service = Annotated[Timelines, from_state("timelines")]
Store = Annotated[TimelinesStore, from_state("store")]
Reader = Annotated[str | None, Depends(get_reader)]
PageOf = Annotated[Page, Depends(get_page)]
PageOfPosts = Annotated[Page, Depends(get_page_of_posts)]

# Of a route that calls the users service.
UNAVAILABLE = (store_unavailable("postgres"), service_unavailable("users"))


def linked(
    found: Sequence[Item],
    page: Page,
    request: Request,
    response: Response,
    id_of: Callable[[Item], UUID] = attrgetter("id"),
) -> Sequence[Item]:
    """The items of a page, and links to its neighbours."""
    limit = page.limit - 1
    shown, has_older = cut(found, limit, page.after)
    if shown:
        newest, oldest = id_of(shown[0]), id_of(shown[-1])
        if page.after and oldest < page.after:
            # It was stored late: the neighbours are those of the cursor, which the client came from.
            newest, oldest = max(newest, page.after), UUID(int=min(page.after.int + 1, LAST_ID.int))
        older = {"before": oldest} if has_older else None
        seen = str(found.seen) if isinstance(found, Found) and found.seen else ""
        newer = {"after": newest} | ({"seen": seen} if 0 < len(seen) <= MAX_POSITION else {})
        link_both_ways(older, newer, limit, request, response)
    return shown
