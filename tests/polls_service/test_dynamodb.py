"""One table in DynamoDB: how it comes to be, and what happens when DynamoDB says no."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pytest
import server_processes
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ConnectionClosedError

from common.server.app import THREADS
from polls_service import dynamodb as module
from polls_service.dynamodb import AccessDenied, ConditionFailed, DynamoTable, TableMissing, Throttled, key
from tests.hung_server import count_waits, hung_server

Connect = Callable[..., DynamoTable]
Hook = Callable[[str, Callable[..., Any]], None]
Refusal = Callable[..., AWSResponse]
Interfere = Callable[[str, list[AWSResponse]], None]
Answer = Callable[[str], AWSResponse]

CONFLICT = ("TransactionCanceledException", "None", "TransactionConflict")
RETRYABLE_CODES = [
    CONFLICT,
    ("TransactionCanceledException", "ThrottlingError", "None"),
    ("TransactionCanceledException", "None", "ProvisionedThroughputExceeded"),
    ("TransactionConflictException",),
    ("TransactionInProgressException",),
    ("ThrottlingException",),
    ("ProvisionedThroughputExceededException",),
    ("RequestLimitExceeded",),
    ("InternalServerError",),
]


@pytest.fixture
def connect(url: str) -> Iterator[Connect]:
    """Clients of this server, or of another, to a table of this test's own."""
    made: list[DynamoTable] = []

    def connect(name: str = "Own", place: str = url) -> DynamoTable:
        made.append(DynamoTable.connect(place, "us-east-1", "dummy", "dummy", name))
        return made[-1]

    yield connect
    for table in made:
        table.close()


@pytest.fixture
def own(connect: Connect) -> Iterator[DynamoTable]:
    """A table that does not exist yet."""
    table = connect()
    yield table
    table._dynamodb.delete_table(TableName=table.name)


def _item(pk: str, number: int = 0) -> dict[str, object]:
    return key(pk, "item") | {"number": {"N": str(number)}}


def _write(table: DynamoTable, pk: str) -> None:
    put = {"Item": _item(pk), "ConditionExpression": "attribute_not_exists(pk)"}
    add = {
        "Key": key(pk, "count"),
        "UpdateExpression": "ADD written :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    table.transact([{"Put": put}, {"Update": add}])


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.1)


def test_a_missing_table_is_made_and_one_that_is_there_kept(own: DynamoTable) -> None:
    own.prepare()
    own.put(_item("kept"))
    own.prepare()

    assert own.get(key("kept", "item")) == _item("kept")


def test_a_table_is_paid_for_by_the_request(own: DynamoTable) -> None:
    own.prepare()

    described = own._dynamodb.describe_table(TableName=own.name)["Table"]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


def test_many_processes_may_make_it_at_once(own: DynamoTable, connect: Connect) -> None:
    tables = [connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(DynamoTable.prepare, tables))

    assert own.status() == "ACTIVE"


def test_who_loses_the_race_to_make_it_uses_the_winners(
    table: DynamoTable, interfere: Interfere, refusal: Refusal
) -> None:
    interfere("DescribeTable", [refusal("ResourceNotFoundException")])
    interfere("CreateTable", [refusal("ResourceInUseException")])

    table.prepare()

    assert table.status() == "ACTIVE"


def test_a_table_that_is_being_made_is_waited_for(
    table: DynamoTable, interfere: Interfere, response: Answer
) -> None:
    being_made = [response('{"Table": {"TableStatus": "CREATING"}}') for _ in range(3)]
    interfere("DescribeTable", being_made)

    table.prepare()

    assert being_made == []


@pytest.mark.usefixtures("hurry")
def test_a_table_that_is_not_made_in_time_is_an_outage(
    table: DynamoTable, interfere: Interfere, response: Answer
) -> None:
    interfere("DescribeTable", [response('{"Table": {"TableStatus": "CREATING"}}') for _ in range(1000)])

    with pytest.raises(Throttled, match="Polls is CREATING"):
        table.prepare()


def test_a_table_that_is_being_changed_can_be_used(
    table: DynamoTable, interfere: Interfere, response: Answer
) -> None:
    changing = [response('{"Table": {"TableStatus": "UPDATING"}}') for _ in range(2)]
    interfere("DescribeTable", changing)

    table.prepare()

    assert len(changing) == 1


def test_a_table_that_is_there_needs_no_right_to_make_one(
    table: DynamoTable, interfere: Interfere, refusal: Refusal
) -> None:
    interfere("CreateTable", [refusal("AccessDeniedException")])

    table.prepare()

    assert table.status() == "ACTIVE"


@pytest.mark.parametrize("trouble", RETRYABLE_CODES, ids=" ".join)
def test_what_passes_is_tried_again(
    table: DynamoTable, interfere: Interfere, refusal: Refusal, trouble: tuple[str, ...]
) -> None:
    troubles = [refusal(*trouble) for _ in range(3)]
    interfere("TransactWriteItems", troubles)

    _write(table, f"after {trouble}")

    assert troubles == []
    assert table.get(key(f"after {trouble}", "count")) == key(f"after {trouble}", "count") | {
        "written": {"N": "1"}
    }


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_is_tried_again_whatever_it_says(
    table: DynamoTable, interfere: Interfere, refusal: Refusal, status: int
) -> None:
    interfere("GetItem", [refusal("Something", status=status)])
    table.put(_item("there"))

    assert table.get(key("there", "item")) == _item("there")


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("trouble", RETRYABLE_CODES, ids=" ".join)
def test_what_does_not_pass_in_time_is_an_outage(
    table: DynamoTable, interfere: Interfere, refusal: Refusal, trouble: tuple[str, ...]
) -> None:
    interfere("TransactWriteItems", [refusal(*trouble) for _ in range(1000)])

    with pytest.raises(Throttled):
        _write(table, "never")


def test_pauses_grow_and_are_not_the_same_for_all(
    table: DynamoTable, interfere: Interfere, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[tuple[float, float]] = []
    monkeypatch.setattr(module.random, "uniform", lambda least, most: ranges.append((least, most)) or 0.0)
    interfere("GetItem", [refusal("ThrottlingException") for _ in range(6)])

    table.get(key("nothing", "item"))

    assert ranges == [(0, 0.02), (0, 0.04), (0, 0.08), (0, 0.16), (0, 0.3), (0, 0.3)]


def test_a_condition_that_fails_is_not_tried_again(
    table: DynamoTable, interfere: Interfere, refusal: Refusal
) -> None:
    answers = [refusal("TransactionCanceledException", "ConditionalCheckFailed", "TransactionConflict")] * 2
    interfere("TransactWriteItems", answers)

    with pytest.raises(ConditionFailed):
        _write(table, "refused")
    assert len(answers) == 1


def test_a_write_whose_answer_was_lost_is_done_once(table: DynamoTable, hook: Hook) -> None:
    losses = [ConnectionClosedError(endpoint_url=""), ConnectionClosedError(endpoint_url="")]

    def lose(**_: object) -> None:
        if losses:
            raise losses.pop()

    hook("response-received.dynamodb.TransactWriteItems", lose)

    _write(table, "lost")

    assert table.get(key("lost", "count")) == key("lost", "count") | {"written": {"N": "1"}}


def test_writes_together_are_all_done_or_none(table: DynamoTable) -> None:
    table.put(_item("half"))

    with pytest.raises(ConditionFailed):
        _write(table, "half")
    assert table.get(key("half", "count")) is None


def _leave_out(table: DynamoTable, hook: Hook, how_often: int) -> None:
    """Let DynamoDB answer so many times for one of the wanted items only."""
    times = iter(repeat(None, how_often))

    def leave_out(parsed: dict, **_: object) -> None:
        found = parsed["Responses"][table.name]
        if len(found) > 1 and next(times, "over") is None:
            left = [{"pk": item["pk"], "sk": item["sk"]} for item in found[1:]]
            parsed["Responses"] = {table.name: found[:1]}
            parsed["UnprocessedKeys"] = {table.name: {"Keys": left, "ConsistentRead": True}}

    hook("after-call.dynamodb.BatchGetItem", leave_out)


def test_what_dynamodb_had_no_time_for_is_asked_for_again(table: DynamoTable, hook: Hook) -> None:
    items = [_item(f"batch {number}", number) for number in range(5)]
    for item in items:
        table.put(item)
    _leave_out(table, hook, how_often=3)

    found = table.get_all([key(f"batch {number}", "item") for number in range(6)])

    assert sorted(found, key=lambda item: item["number"]["N"]) == items


@pytest.mark.usefixtures("hurry")
def test_what_dynamodb_never_has_time_for_is_an_outage(
    table: DynamoTable, interfere: Interfere, response: Answer
) -> None:
    never = (
        '{"Responses": {}, "UnprocessedKeys": {"Polls": {"Keys": [{"pk": {"S": "x"}, "sk": {"S": "x"}}]}}}'
    )
    interfere("BatchGetItem", [response(never) for _ in range(1000)])

    with pytest.raises(Throttled):
        table.get_all([key("x", "x")])


def test_what_dynamodb_had_no_time_to_delete_is_deleted_again(
    table: DynamoTable, interfere: Interfere, response: Answer
) -> None:
    table.put(_item("undeleted", 1))
    left = '{"DeleteRequest": {"Key": {"pk": {"S": "undeleted"}, "sk": {"S": "item"}}}}'
    interfere(
        "BatchWriteItem", [response(f'{{"UnprocessedItems": {{"Polls": [{left}]}}}}') for _ in range(3)]
    )

    table.delete_all([key("undeleted", "item"), key("was never there", "item")])

    assert table.get(key("undeleted", "item")) is None


@pytest.mark.usefixtures("hurry")
def test_what_dynamodb_never_has_time_to_delete_is_an_outage(
    table: DynamoTable, interfere: Interfere, response: Answer
) -> None:
    left = '{"DeleteRequest": {"Key": {"pk": {"S": "x"}, "sk": {"S": "x"}}}}'
    interfere(
        "BatchWriteItem", [response(f'{{"UnprocessedItems": {{"Polls": [{left}]}}}}') for _ in range(1000)]
    )

    with pytest.raises(Throttled):
        table.delete_all([key("x", "x")])


def test_keys_go_on_after_a_key_that_is_gone(table: DynamoTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_PER_PAGE", 2)
    for number in range(4):
        table.put(key("queried", f"vote#{number}"))
    table.put(key("queried", "count"))

    found = table.keys("queried", "vote#")
    first = [next(found), next(found)]
    table.delete_all(first)

    assert [item["sk"]["S"] for item in [*first, *found]] == ["vote#0", "vote#1", "vote#2", "vote#3"]


def test_keys_are_listed_in_pages_each_once(
    table: DynamoTable, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEYS_PER_PAGE", 5)
    keys = [key("paged", f"vote#{number:02}") for number in range(23)]
    for one in keys:
        table.put(one)
    pages: list[int] = []
    hook("after-call.dynamodb.Query", lambda parsed, **_: pages.append(len(parsed["Items"])))

    assert list(table.keys("paged", "vote#")) == keys
    assert pages == [5, 5, 5, 5, 3]


def test_a_partition_without_such_items_has_no_keys(table: DynamoTable) -> None:
    table.put(key("unvoted", "count"))

    assert list(table.keys("unvoted", "vote#")) == []


def test_a_missing_table_is_an_outage(connect: Connect) -> None:
    with pytest.raises(TableMissing):
        connect("Missing").get(key("x", "x"))
    assert issubclass(TableMissing, DynamoTable.outages)


@pytest.mark.parametrize(
    "code", ["AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException"]
)
def test_being_refused_is_an_outage(
    table: DynamoTable, interfere: Interfere, refusal: Refusal, code: str
) -> None:
    interfere("GetItem", [refusal(code)])

    with pytest.raises(AccessDenied):
        table.get(key("x", "x"))
    assert issubclass(AccessDenied, DynamoTable.outages)


def test_a_mistake_of_ours_is_no_outage(table: DynamoTable, interfere: Interfere, refusal: Refusal) -> None:
    interfere("GetItem", [refusal("ValidationException")])

    with pytest.raises(ClientError) as mistake:
        table.get(key("x", "x"))
    assert not isinstance(mistake.value, DynamoTable.outages)


def test_a_server_that_is_away_is_an_outage(connect: Connect) -> None:
    with pytest.raises(DynamoTable.outages):
        connect(place=f"http://127.0.0.1:{server_processes.free_port()}").status()


def test_while_dynamodb_hangs_each_thread_waits_once_and_less_than_two_seconds(connect: Connect) -> None:
    with hung_server() as port:
        table = connect(place=f"http://127.0.0.1:{port}")

        assert count_waits(lambda: table.get(key("a", "b")), DynamoTable.outages) <= THREADS
    # One more try may begin just before the deadline.
    assert module.DEADLINE_SECONDS + module.READ_SECONDS < 2


def test_a_proxy_is_not_on_the_way_to_a_server_that_is_named(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server_processes.free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)

    with pytest.raises(TableMissing):
        connect("Missing").status()


def test_an_empty_url_means_aws_itself() -> None:
    table = DynamoTable.connect("", "eu-west-1", "dummy", "dummy", "Polls")

    assert table._dynamodb.meta.endpoint_url == "https://dynamodb.eu-west-1.amazonaws.com"


def test_aws_without_credentials_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, "/nowhere")

    with pytest.raises(DynamoTable.outages):
        DynamoTable.connect("", "us-east-1", "dummy", "dummy", "Polls").status()
