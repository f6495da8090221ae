"""The API documents: on the Swagger page, "Execute" works with the values that are filled in."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator

import gateway
from common.errors import PROBLEM_JSON, ProblemDetails
from users_service.models import ALICE, BOB, Credentials

SERVICES = ["registry", "users", "timelines", "likes", "polls"]
ROOT = Path(__file__).parent.parent
HINT = "see how other routes do it: Path(examples=[…]), Field(examples=[…])"


def _app(service: str) -> FastAPI:
    app: FastAPI = import_module(f"{service}_service.app").app
    return app


def _merged() -> dict[str, Any]:
    app = gateway.create_app(gateway.GatewaySettings(_env_file=None, registry_url=None))
    api = app.state.api_document
    for service in SERVICES[1:]:
        api._last[service] = api._routed_paths(service, _app(service).openapi())
    return api._merged_with(app.openapi())


@pytest.fixture(scope="module", params=[*SERVICES, "gateway"])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return _merged() if request.param == "gateway" else _app(request.param).openapi()


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def _is_accepted(document: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    return bool(Draft202012Validator(schema | {"components": document["components"]}).is_valid(value))


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _body_examples(document: dict[str, Any], content: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the body, or the one that Swagger makes of its properties."""
    if "examples" in content:
        return [example["value"] for example in content["examples"].values()]
    schema = content["schema"]
    schema = _resolved(document, next(iter(schema.get("anyOf", [schema]))))
    return [{name: one["examples"][0] for name, one in schema["properties"].items() if "examples" in one}]


def test_each_parameter_in_a_path_has_an_example_that_is_accepted(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                assert "example" in parameter, f"{name}: {parameter['name']} has no example: {HINT}"
                assert _is_accepted(document, parameter["schema"], parameter["example"]), name


def test_each_body_has_a_name_and_an_example_that_is_accepted(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "$ref" in str(content["schema"]), f"{name}: the schema of its body has no name"
            for example in _body_examples(document, content):
                assert example, f"{name}: its body has no example: {HINT}"
                assert _is_accepted(document, content["schema"], example), (name, example)


@pytest.mark.parametrize("service", SERVICES)
def test_each_example_of_a_body_is_accepted_by_its_model(service: str) -> None:
    app = _app(service)
    operations = dict(_operations(app.openapi()))
    for route in app.routes:
        if isinstance(route, APIRoute) and route.body_field:
            (method,) = route.methods
            content = operations[f"{method.lower()} {route.path}"]["requestBody"]["content"]
            for example in _body_examples(app.openapi(), content["application/json"]):
                _, errors = route.body_field.validate(example, loc=("body",))
                assert not errors, (route.path, errors)


def test_each_error_has_an_example_of_itself(document: dict[str, Any]) -> None:
    for name, operation in _operations(document):
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get(PROBLEM_JSON, {"examples": {}})
            assert int(status) < 400 or status == "503" or content["examples"], (name, status)
            for code, example in content["examples"].items():
                details = ProblemDetails.model_validate(example["value"])
                assert (details.code, details.status) == (code, int(status)), name
                assert details.title == HTTPStatus(int(status)).phrase, name
                assert (status == "422") == bool(details.errors), name


def test_the_login_example_signs_in_the_user_of_the_register_example() -> None:
    document = _merged()
    register, login = (document["paths"][path]["post"]["requestBody"] for path in ("/register", "/login"))
    alice, bob = _body_examples(document, register["content"]["application/json"])
    (signing_in,) = _body_examples(document, login["content"]["application/json"])

    assert (alice, bob) == (ALICE, BOB)
    assert signing_in == {name: ALICE[name] for name in ("username", "password")}
    assert Credentials.model_validate(signing_in)


def test_the_examples_of_one_thing_are_the_same_everywhere() -> None:
    document = _merged()
    examples = {
        (parameter["name"], parameter["example"])
        for name, operation in _operations(document)
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "path" and not re.search("(follow|block|mute)/", name)
    }
    post = document["components"]["schemas"]["Post"]["properties"]
    (post_id,) = post["id"]["examples"]

    ids = {(name, post_id) for name in ("post_id", "poll_id", "notification_id")}
    assert examples == {("username", "alice"), ("tag", "morning"), *ids}
    assert post["username"]["examples"] == ["alice"]
    assert UUID(post_id).version == 7


@pytest.mark.parametrize("text", ["README.md", "bin/dev.py"])
def test_the_users_of_the_examples_are_those_of_the_first_steps(text: str) -> None:
    shown = (ROOT / text).read_text()

    for user in (ALICE, BOB):
        for field in user.keys() - {"bio"}:
            assert user[field] in shown, f"{text}: {user['username']}'s {field} is {user[field]}"


@pytest.mark.parametrize("verb", ["follow", "unfollow", "block", "unblock", "mute", "unmute"])
def test_alice_follows_bob(verb: str) -> None:
    (username,) = _merged()["paths"][f"/users/{verb}/{{username}}"]["post"]["parameters"]

    assert username["example"] == BOB["username"]
