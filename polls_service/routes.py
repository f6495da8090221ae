"""HTTP for polls: read the request, call the store, name the status."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request, Response

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser, OptionalSubject
from common.api.problems import problems
from common.api.routing import router
from common.fields import Id
from polls_service.models import NewPoll, NewVote, Poll, PollWithVote, Results, Vote
from polls_service.store import PollsStore

routes = router("polls")


async def get_store(request: Request) -> PollsStore:
    store: PollsStore = request.app.state.store
    return store


Store = Annotated[PollsStore, Depends(get_store)]


@routes.post(
    "/polls",
    status_code=201,
    responses={201: {"headers": headers.LOCATION}, **problems(401, 403, 413, 415, 422, 503)},
)
def create(poll: NewPoll, username: CurrentUser, store: Store, response: Response) -> Poll:
    """Create a poll."""
    created = store.create(poll, username, datetime.now(UTC))
    response.headers["Location"] = f"/polls/{created.id}"
    return created


@routes.get(
    "/polls/{poll_id}",
    response_model=PollWithVote | Poll,
    responses=problems(401, 404, 422, 503),
    openapi_extra=TOKEN_OPTIONAL,
)
def poll(poll_id: Id, store: Store, subject: OptionalSubject) -> Poll:
    """A poll and, with a token, what you voted."""
    found = store.poll(poll_id)
    if subject is None:
        return found
    return PollWithVote(**found.model_dump(), voted=store.voted(poll_id, subject))


@routes.post(
    "/polls/{poll_id}/vote", status_code=201, responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 503)
)
def vote(poll_id: Id, choice: NewVote, username: CurrentUser, store: Store) -> Vote:
    """Vote, once: a vote is for good."""
    return store.vote(poll_id, username, choice.option)


@routes.get("/polls/{poll_id}/results", responses=problems(404, 422, 503))
def results(poll_id: Id, store: Store) -> Results:
    """How many voted for what; never who."""
    return store.results(poll_id)
