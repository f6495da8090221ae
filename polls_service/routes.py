"""HTTP for polls: read the request, call the store, name the status."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request, Response

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser, OptionalSubject
from common.api.problems import problems
from common.api.routing import router
from common.errors import store_unavailable
from common.fields import Id
from polls_service import errors
from polls_service.models import NewPoll, NewVote, Poll, PollWithVote, Results, Vote
from polls_service.store import PollsStore

routes = router("polls", store_unavailable("dynamodb"))


async def get_store(request: Request) -> PollsStore:
    store: PollsStore = request.app.state.store
    return store


Store = Annotated[PollsStore, Depends(get_store)]


@routes.post(
    "/polls",
    status_code=201,
    responses={201: {"headers": headers.LOCATION}},
)
def create(poll: NewPoll, username: CurrentUser, store: Store, response: Response) -> Poll:
    """Create a poll."""
    created = store.create(poll, username, datetime.now(UTC))
    response.headers["Location"] = f"/polls/{created.id}"
    return created


@routes.get(
    "/polls/{poll_id}",
    response_model=PollWithVote | Poll,
    responses=problems(errors.poll_not_found()),
    openapi_extra=TOKEN_OPTIONAL,
)
def poll(poll_id: Id, store: Store, subject: OptionalSubject) -> Poll:
    """A poll and, with a token, your vote."""
    found = store.poll(poll_id)
    if subject is None:
        return found
    return PollWithVote(**found.model_dump(), voted=store.voted(poll_id, subject))


@routes.post(
    "/polls/{poll_id}/vote",
    status_code=201,
    responses=problems(errors.option_out_of_range(), errors.poll_not_found(), errors.already_voted()),
)
def vote(poll_id: Id, choice: NewVote, username: CurrentUser, store: Store) -> Vote:
    """Vote in a poll, once: a vote cannot be changed."""
    return store.vote(poll_id, username, choice.option)


@routes.get("/polls/{poll_id}/results", responses=problems(errors.poll_not_found()))
def results(poll_id: Id, store: Store) -> Results:
    """How many users voted for each option."""
    return store.results(poll_id)
