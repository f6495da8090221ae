"""What the routes of the timelines service depend on: the store, the service, the reader, the page."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from common.api.auth import OptionalSubject
from common.api.pagination import Item, Limit, paginate_both_ways
from common.api.routing import from_state
from common.discovery.client import service_unavailable
from common.errors import store_unavailable
from common.fields import Id
from common.tokens import is_service
from timelines_service.post_query import Page
from timelines_service.service import Timelines
from timelines_service.store import TimelinesStore


async def get_reader(subject: OptionalSubject) -> str | None:
    """The user who reads, if the request has a user's token."""
    return None if subject is None or is_service(subject) else subject


async def get_page(
    limit: Limit = 20,
    before: Annotated[Id | None, Query(description="The last id of the previous page.")] = None,
    after: Annotated[Id | None, Query(description="The first id of a page, for newer ones.")] = None,
) -> Page:
    # One more than is shown says whether there are more.
    return Page(limit + 1, before, after)


Service = Annotated[Timelines, from_state("timelines")]
Store = Annotated[TimelinesStore, from_state("store")]
Reader = Annotated[str | None, Depends(get_reader)]
PageOf = Annotated[Page, Depends(get_page)]

# Of a route that calls the users service.
UNAVAILABLE = (store_unavailable("postgres"), service_unavailable("users"))


def linked(
    found: Sequence[Item],
    page: Page,
    request: Request,
    response: Response,
    id_of: Callable[[Item], object] = attrgetter("id"),
) -> Sequence[Item]:
    """The items of a page, and links to its neighbours."""
    return paginate_both_ways(found, page.limit - 1, page.after, id_of, request, response)
