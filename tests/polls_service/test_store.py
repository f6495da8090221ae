"""Votes: one a user, exactly counted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import servers
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError

from common.errors import Conflict
from polls_service import store as store_module
from polls_service.models import NewPoll, Poll
from polls_service.store import Busy, PollsStore, TableMissing


@pytest.fixture
def poll(store: PollsStore) -> Poll:
    return store.create(NewPoll(question="Tea?", options=["Yes", "No"]), "alice", datetime.now(UTC))


def _votes(store: PollsStore, poll: Poll) -> list[int]:
    return [option.votes for option in store.results(poll.id).results]


def _try_to_vote(store: PollsStore, poll: Poll, username: str) -> bool:
    try:
        store.vote(poll.id, username, 1)
    except Conflict:
        return False
    return True


def test_fifty_who_vote_at_once_are_all_counted(store: PollsStore, poll: Poll) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.vote(poll.id, f"voter{number}", number % 2), range(50)))

    assert _votes(store, poll) == [25, 25]


def test_of_twenty_votes_of_one_user_at_once_one_counts(store: PollsStore, poll: Poll) -> None:
    with ThreadPoolExecutor(16) as pool:
        accepted = list(pool.map(lambda _: _try_to_vote(store, poll, "bob"), range(20)))

    assert accepted.count(True) == 1
    assert _votes(store, poll) == [0, 1]


def test_a_vote_is_remembered(store: PollsStore, poll: Poll) -> None:
    store.vote(poll.id, "bob", 1)

    assert (store.voted(poll.id, "bob"), store.voted(poll.id, "carol")) == (1, None)


def test_a_poll_is_the_same_when_read_anew(store: PollsStore, poll: Poll) -> None:
    store._remembered.cache_clear()

    assert store.poll(poll.id) == poll


Interfere = Callable[[list[Any]], None]


@pytest.fixture
def interfere(store: PollsStore) -> Interfere:
    """Give these troubles in place of the answers to the next transactions.

    No stand-in throttles, or gets into its own way, by itself.
    """

    def interfere(troubles: list[Any]) -> None:
        def trouble(**_: Any) -> Any:
            return troubles.pop(0) if troubles else None

        store._dynamodb.meta.events.register("before-send.dynamodb.TransactWriteItems", trouble)

    return interfere


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> list[bytes]:
        return [self._body]


def _refusal(code: str, reasons: str = "[]") -> AWSResponse:
    body = f'{{"__type": "com.amazonaws.dynamodb#{code}", "CancellationReasons": {reasons}}}'
    return AWSResponse("", 400, {}, _Raw(body.encode()))


CONFLICT = '[{"Code": "None"}, {"Code": "TransactionConflict"}]'


@pytest.mark.parametrize(
    ("code", "reasons"),
    [
        ("TransactionCanceledException", CONFLICT),
        ("ThrottlingException", "[]"),
        ("ProvisionedThroughputExceededException", "[]"),
        ("TransactionInProgressException", "[]"),
        ("InternalServerError", "[]"),
    ],
)
def test_a_passing_trouble_is_tried_again(
    store: PollsStore, poll: Poll, interfere: Interfere, code: str, reasons: str
) -> None:
    interfere([_refusal(code, reasons), _refusal(code, reasons)])

    store.vote(poll.id, "bob", 1)

    assert _votes(store, poll) == [0, 1]


def test_a_trouble_that_does_not_pass_is_an_outage(
    store: PollsStore, poll: Poll, interfere: Interfere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "DEADLINE_SECONDS", 0.05)
    interfere([_refusal("ThrottlingException")] * 1000)

    with pytest.raises(Busy):
        store.vote(poll.id, "bob", 1)


def test_a_vote_whose_answer_was_lost_counts_once_and_is_no_conflict(store: PollsStore, poll: Poll) -> None:
    lost = [True]

    def lose(**_: Any) -> None:
        if lost:
            lost.pop()
            raise ConnectionClosedError(endpoint_url="")

    store._dynamodb.meta.events.register("response-received.dynamodb.TransactWriteItems", lose)

    store.vote(poll.id, "bob", 1)

    assert _votes(store, poll) == [0, 1]


def test_a_missing_table_is_an_outage_until_it_is_prepared_again(store: PollsStore, poll: Poll) -> None:
    store._dynamodb.delete_table(TableName="Polls")
    with pytest.raises(TableMissing):
        store.ping()

    store.prepare()

    store.ping()


def test_preparing_in_several_processes_at_once_is_safe(dynamodb_port: int) -> None:
    url = f"http://127.0.0.1:{dynamodb_port}"
    stores = [PollsStore.connect(url, "us-east-1", "dummy", "dummy", "AtOnce") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(PollsStore.prepare, stores))

    stores[0].ping()


def test_a_server_that_is_away_is_an_outage() -> None:
    store = PollsStore.connect(f"http://127.0.0.1:{servers.free_port()}", "us-east-1", "x", "x", "Polls")

    with pytest.raises(PollsStore.outages):
        store.ping()


def test_an_empty_url_means_aws_itself() -> None:
    store = PollsStore.connect("", "eu-west-1", "dummy", "dummy", "Polls")

    assert store._dynamodb.meta.endpoint_url == "https://dynamodb.eu-west-1.amazonaws.com"
