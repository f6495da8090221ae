"""HTTP for polls: read the request, call the store, name the status."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Response

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser, OptionalSubject
from common.api.batch import UNIQUE, batch
from common.api.problems import problems
from common.api.routing import from_state, router
from common.errors import store_unavailable
from common.fields import Id
from polls_service import errors
from polls_service.models import (
    Choice,
    NewPoll,
    NewVoteForSeveral,
    Poll,
    PollWithVote,
    Results,
    Vote,
    VoteForSeveral,
)
from polls_service.store import PollsStore

routes = router("polls", store_unavailable("dynamodb"))


Store = Annotated[PollsStore, from_state("store")]
PollIds = Annotated[list[Id], batch("id"), UNIQUE]


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


@routes.get("/polls", response_model=list[PollWithVote | Poll], openapi_extra=TOKEN_OPTIONAL)
def polls(poll_ids: PollIds, store: Store, subject: OptionalSubject) -> Sequence[Poll]:
    """Those of these polls that exist and, with a token, your votes."""
    return store.polls(poll_ids, subject)


@routes.get(
    "/polls/{poll_id}",
    response_model=PollWithVote | Poll,
    responses=problems(errors.poll_not_found()),
    openapi_extra=TOKEN_OPTIONAL,
)
def poll(poll_id: Id, store: Store, subject: OptionalSubject) -> Poll:
    """A poll and, with a token, your vote."""
    return store.poll(poll_id, subject)


@routes.delete(
    "/polls/{poll_id}",
    status_code=204,
    responses=problems(
        errors.not_yours(),
        errors.poll_not_found(),
        errors.deletion_unfinished(),
        store_unavailable("dynamodb"),
    ),
)
def delete(poll_id: Id, username: CurrentUser, store: Store) -> None:
    """Delete your poll, with its votes."""
    store.delete(poll_id, username)


@routes.post(
    "/polls/{poll_id}/vote",
    status_code=201,
    response_model=VoteForSeveral | Vote,
    responses=problems(
        errors.option_out_of_range(),
        errors.single_choice(),
        errors.poll_not_found(),
        errors.already_voted(),
        errors.poll_closed(),
    ),
)
def vote(poll_id: Id, choice: Choice, username: CurrentUser, store: Store) -> Vote:
    """Vote in a poll, once: a vote cannot be changed."""
    chosen = store.vote(poll_id, username, *choice.options)
    if isinstance(choice, NewVoteForSeveral):
        return VoteForSeveral(poll_id=poll_id, option=chosen[0], options=chosen)
    return Vote(poll_id=poll_id, option=chosen[0])


@routes.get("/polls/{poll_id}/results", responses=problems(errors.poll_not_found()))
def results(poll_id: Id, store: Store) -> Results:
    """How many users voted for each option."""
    return store.results(poll_id)
