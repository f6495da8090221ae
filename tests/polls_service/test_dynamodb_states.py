"""What DynamoDB, AWS's settings, or what is in DynamoDB's place may say: on a real socket."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import server_processes
from fastapi.testclient import TestClient

from polls_service import dynamodb as module
from polls_service.app import create_app
from polls_service.dynamodb import AccessDenied, ConditionFailed, DynamoTable, Throttled, key
from polls_service.settings import PollsSettings
from tests.polling import eventually

JSON = "application/x-amz-json-1.0"
STRANGE = "does not respond as DynamoDB does"
INTERNAL = "reports an internal error"
CLOCK = "rejects the time of requests: set this machine's clock"
DISABLED = "is not enabled for this account"
KEY = "cannot use the key that encrypts its table"
Table = Callable[..., DynamoTable]


def response(body: bytes, status: int = 200, media_type: str = JSON) -> bytes:
    head = f"HTTP/1.1 {status} -\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def error(code: str, message: str = "", status: int = 400, reasons: tuple[str, ...] = ()) -> bytes:
    said: dict[str, Any] = {"__type": f"com.amazon.coral.service#{code}", "message": message}
    if reasons:
        said["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return response(json.dumps(said).encode(), status)


@contextmanager
def server(answer: bytes, requests: list[bytes] | None = None) -> Iterator[str]:
    """The URL of one that responds so to every request, and keeps their heads."""

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                head = connection.recv(65536)
                if not head:
                    return
                if requests is not None:
                    requests.append(head)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        address = listener.getsockname()
        yield f"http://127.0.0.1:{address[1]}"
        socket.create_connection(address).close()
        thread.join()


def connect(url: str, token: str = "") -> DynamoTable:
    return DynamoTable.connect(url, "us-east-1", "dummy", "dummy", "Polls", token)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0)


CALLS: dict[str, Callable[[DynamoTable], object]] = {
    "ping": DynamoTable.ping,
    "get": lambda table: table.get(key("a", "b")),
    "get_all": lambda table: table.get_all([key("a", "b")]),
    "put": lambda table: table.put(key("a", "b")),
    "keys": lambda table: list(table.keys("a", "b")),
    "delete_all": lambda table: table.delete_all([key("a", "b")]),
    "transact": lambda table: table.transact([]),
}


def outages(answer: bytes, *calls: str) -> list[Exception]:
    """What each of these calls raises."""
    found: list[Exception] = []
    with server(answer) as url, closing(connect(url)) as table:
        for call in calls:
            with pytest.raises(DynamoTable.outages) as outage:
                CALLS[call](table)
            found.append(outage.value)
    return found


def refused(answer: bytes, call: str = "transact") -> Exception:
    [outage] = outages(answer, call)
    return outage


@pytest.mark.parametrize(
    "answer",
    [
        response(b"<html>Sign in to this network</html>", media_type="text/html"),
        response(b"<html>Sign in to this network</html>", 403, "text/html"),
        response(b"", 302),
        response(b"", 204),
        response(b"", 407),
        response(b"[]"),
        response(b"null"),
        response(b"\xff"),
        response(b"[]", 400),
        response(b'{"detail": "Not Found"}', 404, "application/json"),
        response(b"{}", media_type="application/json"),
        response(b'{"Table": {"TableSta'),
        error("SomethingNew"),
        error("UnknownOperationException"),
    ],
    ids=lambda answer: answer.decode("latin-1").partition("Content")[0] + repr(answer[-20:]),
)
def test_what_is_not_dynamodbs_is_an_outage_of_every_call(answer: bytes) -> None:
    assert [str(outage) for outage in outages(answer, *CALLS)] == [STRANGE] * len(CALLS)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error("OptInRequired"), DISABLED),
        (error("SubscriptionRequiredException"), DISABLED),
        (error("RequestExpired"), CLOCK),
        (error("InvalidSignatureException", "Signature expired: 2026 is now earlier than 2027"), CLOCK),
        (error("InvalidSignatureException", "Signature not yet current: 2027 is still later"), CLOCK),
        (error("KMSAccessDeniedException"), KEY),
        (error("KMSDisabledException"), KEY),
        (error("KMSInvalidStateException"), KEY),
        (error("KMSNotFoundException"), KEY),
        (error("InternalServerError", status=500), INTERNAL),
        (error("ServiceUnavailable", status=503), INTERNAL),
        (response(b"<html>Bad Gateway</html>", 502, "text/html"), INTERNAL),
        (response(b"[]", 503), INTERNAL),
        (error("ResourceNotFoundException"), "has no table Polls"),
        (error("ResourceInUseException"), "its table is in use"),
        (error("TransactionCanceledException", reasons=("None", "SomethingNew")), STRANGE),
    ],
    ids=lambda it: "" if isinstance(it, str) else it.decode()[-60:],
)
def test_a_state_of_dynamodb_is_an_outage_with_its_reason(answer: bytes, reason: str) -> None:
    assert str(refused(answer)) == reason


@pytest.mark.parametrize(
    "code",
    [
        *("AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException"),
        *("InvalidSignatureException", "MissingAuthenticationTokenException", "UnrecognizedClientException"),
        *("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch", "MissingAuthenticationToken"),
    ],
)
def test_credentials_that_are_rejected_are_an_outage(code: str) -> None:
    assert isinstance(refused(error(code)), AccessDenied)
    assert isinstance(
        refused(error("TransactionCanceledException", reasons=("None", "AccessDenied"))), AccessDenied
    )


@pytest.mark.parametrize(
    "answer",
    [
        error("ThrottlingException"),
        error("ProvisionedThroughputExceededException"),
        error("LimitExceededException"),
        error("ReplicatedWriteConflictException"),
        error("TransactionCanceledException", reasons=("TransactionConflict", "None")),
        response(b"<html>Slow down</html>", 429, "text/html"),
    ],
    ids=lambda answer: answer.decode()[-40:],
)
def test_throttling_is_an_outage_of_this_request(answer: bytes) -> None:
    assert isinstance(refused(answer), Throttled)
    assert str(refused(error("ThrottlingException"), "ping")) == "throttles its callers"


@pytest.mark.parametrize(
    "answer",
    [
        error("ValidationException"),
        error("SerializationException"),
        error("IdempotentParameterMismatchException"),
        error("TransactionCanceledException", reasons=("None", "ValidationError")),
    ],
    ids=lambda answer: answer.decode()[-60:],
)
def test_a_request_that_is_wrong_is_a_bug(answer: bytes) -> None:
    with server(answer) as url, closing(connect(url)) as table, pytest.raises(Exception) as bug:  # noqa: PT011
        CALLS["transact"](table)
    assert not isinstance(bug.value, DynamoTable.outages)


def test_a_condition_that_fails_is_no_outage() -> None:
    answer = error("TransactionCanceledException", reasons=("None", "ConditionalCheckFailed"))
    with server(answer) as url, closing(connect(url)) as table, pytest.raises(ConditionFailed):
        CALLS["transact"](table)


@pytest.mark.parametrize("status", ["INACCESSIBLE_ENCRYPTION_CREDENTIALS", "DELETING", "ARCHIVED"])
def test_a_table_that_cannot_be_used_is_an_outage(status: str) -> None:
    answer = response(json.dumps({"Table": {"TableStatus": status}}).encode())

    assert str(refused(answer, "ping")) == f"its table is {status}"


def test_a_server_without_tls_is_an_outage() -> None:
    with (
        server(response(b"{}", 400)) as url,
        closing(connect(url.replace("http", "https"))) as table,
        pytest.raises(DynamoTable.outages, match="no TLS"),
    ):
        table.ping()


def test_a_name_that_is_not_known_is_an_outage() -> None:
    with (
        closing(connect("http://host.invalid:1")) as table,
        pytest.raises(DynamoTable.outages, match="reached"),
    ):
        table.ping()


def test_a_proxy_that_is_away_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "dummy"), ("AWS_SECRET_ACCESS_KEY", "dummy")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server_processes.free_port()}")

    with closing(connect("")) as table, pytest.raises(DynamoTable.outages, match="through the proxy"):
        table.ping()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"AWS_ACCESS_KEY_ID": "only"}, "PartialCredentialsError"),
        ({"AWS_PROFILE": "missing"}, "ProfileNotFound"),
        ({"AWS_CONFIG_FILE": "{folder}/broken"}, "ConfigParseError"),
        ({"AWS_RETRY_MODE": "none"}, "InvalidRetryModeError"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "ValueError"),
        ({}, "NoCredentialsError"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_what_is_wrong_with_awss_own_settings_is_an_outage_until_it_is_put_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], reason: str
) -> None:
    (tmp_path / "broken").write_text("[profile")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, "/nowhere")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))

    with closing(connect("")) as table:
        with pytest.raises(DynamoTable.outages, match=reason):
            table.ping()
        for name in variables:
            monkeypatch.delenv(name)

        assert table._dynamodb.meta.endpoint_url == "https://dynamodb.us-east-1.amazonaws.com"


@pytest.mark.parametrize(("token", "sent"), [("a-session-token", True), ("", False)])
def test_a_session_token_goes_with_the_key(token: str, sent: bool) -> None:
    requests: list[bytes] = []
    settings = PollsSettings(_env_file=None, registry_url=None, aws_session_token=token)
    with server(response(b'{"Table": {"TableStatus": "ACTIVE"}}'), requests) as url:
        store = create_app(settings.model_copy(update={"dynamodb_url": url})).state.store
        store.ping()
        store.close()

    assert (b"\r\nX-Amz-Security-Token: a-session-token\r\n" in requests[0]) is sent


def test_health_says_why_dynamodb_cannot_serve() -> None:
    with server(error("KMSDisabledException")) as url:
        settings = PollsSettings(_env_file=None, registry_url=None, dynamodb_url=url)
        with TestClient(create_app(settings)) as client:
            # On a busy machine the first ping may be late, which is a reason too.
            eventually(lambda: client.get("/health").json().get("reasons") == {"dynamodb": KEY})
