"""Texts that people write, of whatever kind: kept as they are, or refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from common.fields import new_id
from tests.suite.conftest import PASSWORD, Suite

pytestmark = pytest.mark.starts

KEPT = {
    "markup": "<script>alert(1)</script> & &amp; \"quotes\" 'single'",
    "SQL": "'; DROP TABLE posts; --",
    "Lua": "']] return redis.call('FLUSHALL') --[[",
    "a template": "{{7*7}} ${7*7} %s %(x)s {0}",
    "a path": "../../etc/passwd",
    "several lines": "one\ntwo\tthree",
    "right to left": "\u202eabc\u202c שלום العربية",
    "four bytes": "😀 👨‍👩‍👧‍👦",
    "combined": "Z\u0351\u034aa\u0300l\u0301g\u0302o",
    "invisible": "a\u200b\u2060b",
    "line separators": "one\u2028two\u2029three",
    "no characters": "a\ufffe\uffff\U0010ffff",
    "a log line": '{"level": "error", "message": "forged"}',
}
REFUSED = {
    "NUL": "a\0b",
    "carriage return": "a\r\nb",
    "escape": "\x1b[31mred",
    "bell": "a\x07",
    "delete": "a\x7f",
    "C1": "a\x85b",
    "half a character": "\ud800",
}


@dataclass
class Field:
    """Where a text is sent, within which body, and how it is found in what is answered."""

    path: str
    body: Callable[[str], dict[str, Any]]
    find: Callable[[dict[str, Any]], str]


def _new_user(bio: str) -> dict[str, Any]:
    return {"username": f"t{new_id().hex[8:32]}", "password": PASSWORD, "bio": bio}


FIELDS = {
    "a post": Field("/posts", lambda text: {"text": text}, lambda post: post["text"]),
    "a post for later": Field("/posts/async", lambda text: {"text": text}, lambda post: post["text"]),
    "a bio": Field("/register", _new_user, lambda user: user["bio"]),
    "a question": Field(
        "/polls", lambda text: {"question": text, "options": ["a", "b"]}, lambda poll: poll["question"]
    ),
    "an option": Field(
        "/polls", lambda text: {"question": "?", "options": ["a", text]}, lambda poll: poll["options"][1]
    ),
}


@pytest.fixture(scope="session")
def writer(suite: Suite) -> dict[str, str]:
    return suite.sign_up("text_writer") | {"Content-Type": "application/json"}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_a_text_is_kept_as_it_is(suite: Suite, writer: dict[str, str], text: str, field: Field) -> None:
    written = suite.gateway.post(field.path, content=json.dumps(field.body(text)), headers=writer)

    assert written.is_success, written.text
    assert field.find(suite.see(written.headers["Location"])) == text


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_text_is_422(suite: Suite, writer: dict[str, str], text: str, field: Field) -> None:
    refused = suite.gateway.post(field.path, content=json.dumps(field.body(text)), headers=writer)

    assert refused.status_code == 422


@pytest.mark.parametrize(
    "path", ["/users/%00", "/users/%F0%9F%98%80", "/posts/%ff", "/users/a%0Ab", "/posts/..%2f"]
)
def test_what_is_no_name_is_never_an_error(suite: Suite, path: str) -> None:
    assert suite.gateway.get(path).status_code in (400, 404, 422)
