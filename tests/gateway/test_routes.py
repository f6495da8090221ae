"""The gateway's own endpoints, and its route table."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from openapi_spec_validator import validate

import gateway
from common.discovery.models import Status
from common.gateway import openapi
from common.gateway.openapi import UNAVAILABLE_NOTE
from common.gateway.routes import matcher
from tests.gateway.conftest import Answer
from tests.instances import instance, snapshot_of


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/register", "users"),
        ("/users/alice", "users"),
        ("/users", "users"),
        ("/search/users", "users"),
        ("/users/alice/likes", "likes"),
        ("/users/alice/followees", "users"),
        ("/users/follow/likes", "users"),
        ("/posts/async", "timelines"),
        ("/posts/home/alice", "timelines"),
        ("/stream", "timelines"),
        ("/likes/popular", "likes"),
        ("/likes", "likes"),
        ("/likes/1/users", "likes"),
        ("/polls/1/results", "polls"),
    ],
)
def test_a_path_leads_to_its_service(path: str, service: str) -> None:
    route = matcher(gateway.ROUTES)(path.encode(), "GET")

    assert route is not None
    assert route.service_name == service


@pytest.mark.parametrize(
    "path",
    ["/", "/users/", "/users/alice/home-sources", "/posts/", "/polls/1/vote/2", "/registerx"],
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert matcher(gateway.ROUTES)(path.encode(), "GET") is None


def test_the_front_page_tells_how_the_services_are(client: TestClient, timelines) -> None:
    overview = client.get("/").json()

    assert overview["services"]["timelines"] == {"status": "up", "instances": 1}
    assert overview["services"]["users"] == {"status": "down", "instances": 0}


def test_health_is_ok_when_every_service_has_an_instance_that_is_up(
    client: TestClient, start, listed
) -> None:
    listed(*(start(name).as_instance() for name in gateway.SERVICES))

    response = client.get("/health")

    assert (response.status_code, response.json()["status"]) == (200, "ok")


def test_health_tells_of_the_best_instance_that_requests_are_sent_to(
    client: TestClient, timelines, start, listed
) -> None:
    listed(timelines.as_instance(Status.DRAINING), start("timelines").as_instance(Status.SUSPECT))
    response = client.get("/health")

    assert (response.status_code, response.json()["checks"]["timelines"]) == (200, "suspect")


def test_health_names_the_services_that_are_missing(client: TestClient, timelines) -> None:
    health = client.get("/health").json()

    assert health["status"] == "degraded"
    assert health["checks"] == {"users": "down", "timelines": "ok", "likes": "down", "polls": "down"}


def test_health_is_503_when_nothing_can_be_routed_to(client: TestClient, start, listed) -> None:
    listed(start("polls").as_instance(Status.DRAINING))

    assert client.get("/health").status_code == 503


def _document(path: str, component: str) -> bytes:
    response = {"$ref": f"#/components/schemas/{component}"}
    content = {"application/json": {"schema": response}}
    operation = {
        "tags": ["x"],
        "security": [{"bearer": []}, {}],
        "responses": {"200": {"description": "", "content": content}, "503": {"description": "Away"}},
    }
    schema = {"type": "object", "title": f"{component} of {path}"}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "x", "version": "1"},
        "paths": {path: {"get": operation}, "/health": {"get": operation}},
        "components": {
            "schemas": {component: schema},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    return json.dumps(document).encode()


@pytest.fixture
def documented(start, listed) -> dict:
    """Two services whose documents use one name for two things."""
    upstreams = {}
    for name, path in (("timelines", "/posts"), ("polls", "/polls")):
        upstreams[name] = start(name)
        document = _document(path, "Thing")
        upstreams[name].behaviour = lambda response, document=document: response.reply(body=document)
    listed(*(upstream.as_instance() for upstream in upstreams.values()))
    return upstreams


def test_the_merged_document_is_valid(client: TestClient, documented) -> None:
    validate(client.get("/openapi.json").json())


def test_the_merged_document_says_nothing_twice(client: TestClient, documented) -> None:
    def once(pairs: list) -> dict:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    json.loads(client.get("/openapi.json").content, object_pairs_hook=once)


def test_the_merged_document_has_the_paths_that_are_routed(client: TestClient, documented) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    assert set(paths) == {"/", "/livez", "/health", "/posts", "/polls"}


def test_a_name_for_two_things_becomes_two_names(client: TestClient, documented) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]

    assert {schemas["Thing"]["title"], schemas["polls_Thing"]["title"]} == {
        "Thing of /posts",
        "Thing of /polls",
    }


def test_where_a_token_is_taken_one_can_sign_in(client: TestClient, documented) -> None:
    document = client.get("/openapi.json").json()

    assert document["paths"]["/posts"]["get"]["security"] == [{"bearer": []}, {"login": []}, {}]
    assert document["components"]["securitySchemes"]["login"]["flows"]["password"]["tokenUrl"] == "/login"


def test_a_service_that_went_away_keeps_its_document(
    client: TestClient, documented, listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openapi, "CACHE_SECONDS", 0)
    client.get("/openapi.json")
    listed()

    assert "/polls" in client.get("/openapi.json").json()["paths"]


def test_what_a_service_that_went_away_said_is_marked_until_it_is_back(
    client: TestClient, documented, listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def descriptions() -> list[str]:
        paths = client.get("/openapi.json").json()["paths"]
        return [paths[path]["get"].get("description", "") for path in ("/posts", "/polls")]

    monkeypatch.setattr(openapi, "CACHE_SECONDS", 0)
    client.get("/openapi.json")
    polls, timelines = (documented[name].as_instance() for name in ("polls", "timelines"))
    listed(timelines)
    while_away = descriptions()
    listed(timelines, polls)

    assert [UNAVAILABLE_NOTE in one for one in while_away] == [False, True]
    assert [UNAVAILABLE_NOTE in one for one in descriptions()] == [False, False]


def test_while_no_service_is_there_the_document_is_the_gateways_own(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    validate(document)
    assert set(document["paths"]) == {"/", "/livez", "/health"}


def test_the_document_of_another_service_at_the_same_address_is_not_shown(
    client: TestClient, documented, listed
) -> None:
    polls, timelines = documented["polls"], documented["timelines"]
    listed(instance(timelines.server_port, "polls"), polls.as_instance(), timelines.as_instance())

    assert {"/posts", "/polls"} <= client.get("/openapi.json").json()["paths"].keys()


ODD = [
    b"[]",
    b'{"paths": {"/polls": null}}',
    b'{"paths": {"/polls": {"get": {}}}}',
    b'{"paths": {"/polls": {"get": {"$ref": "#/components/schemas/None"}}}}',
]


@pytest.mark.parametrize(
    "behaviour",
    [
        lambda response: response.reply(503),
        Answer.reset,
        Answer.hang,
        *(lambda response, odd=odd: response.reply(body=odd) for odd in ODD),
    ],
)
def test_a_service_that_has_no_document_now_hides_no_other(client: TestClient, documented, behaviour) -> None:
    documented["polls"].behaviour = behaviour

    paths = client.get("/openapi.json").json()["paths"]

    assert "/posts" in paths
    assert "/polls" not in paths


def test_however_many_ask_for_the_document_each_service_is_asked_once(client: TestClient, documented) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(client.get, ["/openapi.json"] * 10))

    assert len(documented["polls"].requests) == 1


def test_a_limit_that_can_be_met_is_documented(client: TestClient, documented) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/posts"]["get"]

    assert "Retry-After" in operation["responses"]["429"]["headers"]


def test_the_swagger_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text

    assert "https://" not in page
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200


def test_a_client_that_calls_too_often_is_429(start, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = gateway.create_app(
        gateway.GatewaySettings(_env_file=None, registry_url=None, rate_limit="1/hour burst 2")
    )
    upstream = start("timelines")
    limited.state.directory.update(snapshot_of(upstream.as_instance()), now=0)
    with TestClient(limited) as client:
        answers = [client.get("/posts") for _ in range(3)]

    assert [response.status_code for response in answers] == [200, 200, 429]
    assert answers[-1].json()["code"] == "too_many_requests"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 3600
    assert len(upstream.requests) == 2


def test_guesses_at_a_password_are_limited(client: TestClient, start, listed) -> None:
    users = start("users")
    users.behaviour = lambda response: response.reply(401)
    listed(users.as_instance())
    attempt = {"username": "alice", "password": "guess"}

    statuses = [client.post("/login", json=attempt).status_code for _ in range(40)]

    assert statuses == [401] * 20 + [429] * 20


def test_guesses_at_the_current_password_are_guesses_at_the_account(
    client: TestClient, start, listed
) -> None:
    users = start("users")
    users.behaviour = lambda response: response.reply(403)
    listed(users.as_instance())
    attempt = {"current_password": "guess", "new_password": "battery staple"}
    paths = ["/users/alice/password", "/users/%41lice/password"]

    statuses = [client.put(paths[n % 2], json=attempt).status_code for n in range(30)]
    login = client.post("/login", json={"username": "alice", "password": "guess"})

    assert statuses == [403] * 20 + [429] * 10
    assert login.status_code == 429


def test_a_password_that_was_changed_is_no_guess(client: TestClient, start, listed) -> None:
    users = start("users")
    users.behaviour = lambda response: response.reply(204, b"")
    listed(users.as_instance())
    passwords = {"current_password": "right", "new_password": "battery staple"}

    statuses = {client.put("/users/alice/password", json=passwords).status_code for _ in range(40)}

    assert statuses == {204}


def test_guesses_at_the_password_of_a_deletion_are_guesses_at_the_account(
    client: TestClient, start, listed
) -> None:
    users = start("users")
    users.behaviour = lambda response: response.reply(403)
    listed(users.as_instance())

    statuses = [
        client.post("/users/alice/deletion", json={"password": "guess"}).status_code for _ in range(30)
    ]
    login = client.post("/login", json={"username": "alice", "password": "guess"})

    assert statuses == [403] * 20 + [429] * 10
    assert login.status_code == 429


def test_asking_how_far_a_deletion_is_is_no_guess(client: TestClient, start, listed) -> None:
    users = start("users")
    users.behaviour = lambda response: response.reply(404)
    listed(users.as_instance())

    assert {client.get("/users/alice/deletion").status_code for _ in range(150)} == {404}


def test_a_token_makes_no_more_accounts_from_one_address(client: TestClient, start, listed) -> None:
    users = start("users")
    users.behaviour = lambda response: response.reply(201)
    listed(users.as_instance())
    tokens = [client.app.state.tokens.issue(name) for name in ("alice", "bobby")]

    statuses = [
        client.post("/register", headers={"Authorization": f"Bearer {token}"}).status_code
        for token in tokens
        for _ in range(100)
    ]

    assert 429 in statuses


def test_a_registered_user_is_not_kept_out_by_guesses_from_elsewhere(start) -> None:
    behind_a_proxy = gateway.create_app(
        gateway.GatewaySettings(_env_file=None, registry_url=None, trusted_proxies="127.0.0.1")
    )
    users = start("users")
    behind_a_proxy.state.directory.update(snapshot_of(users.as_instance()), now=0)
    alice = {"username": "alice", "password": "right"}
    owner, other = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    with TestClient(behind_a_proxy, client=("127.0.0.1", 1)) as client:
        users.behaviour = lambda response: response.reply(201)
        client.post("/register", json=alice, headers=owner)
        users.behaviour = lambda response: response.reply(401)
        attempts = [client.post("/login", json=alice, headers=other).status_code for _ in range(21)]
        users.behaviour = Answer.reply

        assert attempts[-1] == 429
        assert client.post("/login", json=alice, headers=owner).status_code == 200


def test_signing_in_again_and_again_is_not(client: TestClient, start, listed) -> None:
    users = start("users")
    listed(users.as_instance())
    right = {"username": "alice", "password": "right"}

    assert {client.post("/login", data=right).status_code for _ in range(40)} == {200}


def test_the_documentation_runs_no_foreign_script(client: TestClient) -> None:
    policy = client.get("/docs").headers["Content-Security-Policy"]

    assert "script-src 'self' 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy
