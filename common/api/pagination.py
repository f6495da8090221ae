"""Pages of a list, and the links from a page to its neighbours."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, TypeVar
from urllib.parse import quote, urlencode

from fastapi import Query, Request, Response

from common.fields import WholeNumber

Limit = Annotated[WholeNumber, Query(ge=1, le=100, description="The size of a page.")]

PAGE_PARAMETERS = {"limit", "before", "after", "seen"}

# Of the parameter, where a list finds an item by its position, too.
SEEN = (
    "With `before` or `after`, as the link has it: where that item was. The page goes on from there, also"
    " when the item is gone, or is elsewhere by now."
)

Item = TypeVar("Item")


def paginate(
    found: Sequence[Item],
    limit: int,
    id_of: Callable[[Item], object],
    request: Request,
    response: Response,
    seen_of: Callable[[Item], object] | None = None,
) -> Sequence[Item]:
    """The first `limit` of the items found, and a link to the next page if there are more.

    The link names an item by `id_of` and, in a list that items leave, by `seen_of`: its position there.
    """
    if len(found) <= limit:
        return found
    shown = found[:limit]
    response.headers["Link"] = _link(request, "next", limit, **_cursor("before", shown[-1], id_of, seen_of))
    return shown


def paginate_both_ways(
    found: Sequence[Item],
    limit: int,
    after: object,
    id_of: Callable[[Item], object],
    request: Request,
    response: Response,
    seen_of: Callable[[Item], object] | None = None,
) -> Sequence[Item]:
    """A page of at most `limit` items, and links to its neighbours.

    `found` has at most `limit + 1` items, newest first: the nearest to the cursor. The one too many is the
    newest where `after` is given, else the oldest. A page with items always links to the previous one, since
    newer items may come at any time. With `after` it also links to the next one, which the client came from.
    The links name items as those of `paginate`.
    """
    shown, has_older = cut(found, limit, after)
    if shown:
        older = _cursor("before", shown[-1], id_of, seen_of) if has_older else None
        newer = _cursor("after", shown[0], id_of, seen_of)
        link_both_ways(older, newer, limit, request, response)
    return shown


def cut(found: Sequence[Item], limit: int, after: object) -> tuple[Sequence[Item], bool]:
    """The items that a page shows of those found, and whether there are older ones."""
    return (found[:limit], len(found) > limit) if after is None else (found[-limit:], True)


def link_both_ways(
    older: Mapping[str, object] | None,
    newer: Mapping[str, object],
    limit: int,
    request: Request,
    response: Response,
) -> None:
    """Link to the page with the parameters `older`, if there is one, and to that with `newer`."""
    following = [_link(request, "next", limit, **older)] if older else []
    response.headers["Link"] = ", ".join([*following, _link(request, "prev", limit, **newer)])


def _cursor(
    name: str, item: Item, id_of: Callable[[Item], object], seen_of: Callable[[Item], object] | None
) -> dict[str, object]:
    return {name: id_of(item)} | ({"seen": seen_of(item)} if seen_of else {})


def _link(request: Request, rel: str, limit: int, **cursor: object) -> str:
    """A path reference, which works through the gateway and directly. It keeps the list's filters."""
    filters = [
        (name, value) for name, value in request.query_params.multi_items() if name not in PAGE_PARAMETERS
    ]
    query = urlencode([*filters, ("limit", limit), *cursor.items()])
    return f'<{quote(request.scope["path"])}?{query}>; rel="{rel}"'
