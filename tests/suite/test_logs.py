"""Requests that fail with something private in them. The suite looks at its log in the end."""

from typing import Any

import pytest

from tests import plain_http
from tests.suite.conftest import PASSWORD, SECRETS, Suite, check_log

pytestmark = pytest.mark.starts

ALICE = {"username": "log_alice", "password": PASSWORD, "email": "log_alice@example.com"}


@pytest.mark.parametrize(
    "body",
    [
        ALICE,
        ALICE | {"username": "log_bobby"},
        ALICE | {"password": [PASSWORD]},
        ALICE | {"password": PASSWORD + "\0"},
        ALICE | {"username": PASSWORD},
        PASSWORD,
        [PASSWORD],
    ],
)
@pytest.mark.parametrize("path", ["/register", "/login"])
def test_a_refusal_repeats_no_password(suite: Suite, path: str, body: Any) -> None:
    suite.gateway.post("/register", json=ALICE)
    answer = suite.gateway.post(path, json=body)

    assert answer.is_client_error
    assert PASSWORD not in answer.text


@pytest.mark.parametrize("service", ["gateway", "registry", "users", "timelines", "likes", "polls"])
def test_a_token_in_the_wrong_place_is_no_error_and_not_logged(suite: Suite, service: str) -> None:
    token, url = suite.tokens.issue("log_alice"), f"http://127.0.0.1:{suite.ports[service]}"
    asked = [
        plain_http.get(f"{url}/posts", params={"access_token": token}),
        plain_http.get(f"{url}/posts", headers={"Cookie": f"token={token}"}),
        plain_http.post(f"{url}/register", content=token, headers={"Authorization": token}),
        plain_http.post(
            f"{url}/register", json={"token": token}, headers={"Authorization": f"Bearer {token}x"}
        ),
        plain_http.post(f"{url}/register", headers={"Authorization": f"Bearer {SECRETS['REGISTRY_TOKEN']}x"}),
    ]

    assert not any(answer.is_server_error for answer in asked)


@pytest.mark.parametrize("secret", [*SECRETS.values(), PASSWORD, "eyJhbGciOiJI", "a@example.com"])
def test_a_log_with_something_private_in_it_is_noticed(secret: str) -> None:
    with pytest.raises(AssertionError):
        check_log(f'{{"message": "{secret}"}}')


def test_an_event_of_two_lines_is_noticed() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        check_log('{"message": "one"}\ntwo')
