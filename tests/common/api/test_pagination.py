"""Pages of a list, and the link from one to the next."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from common.api.pagination import Limit, paginate

NAMES = ["a&b", "c", "d=e", "f", "ü"]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()

    @app.get("/shelves/{shelf}/books")
    def books(
        request: Request, response: Response, limit: Limit = 20, before: str | None = None
    ) -> list[str]:
        left = NAMES[NAMES.index(before) + 1 :] if before else NAMES
        return list(paginate(left[: limit + 1], limit, str, request, response))

    with TestClient(app) as client:
        yield client


def test_a_list_is_an_array(client: TestClient) -> None:
    assert client.get("/shelves/1/books").json() == NAMES


def test_the_link_is_a_path_with_the_same_limit_from_the_last_one_on(client: TestClient) -> None:
    answer = client.get("/shelves/1/books?limit=3", headers={"Host": "elsewhere.example"})

    assert answer.headers["Link"] == '</shelves/1/books?limit=3&before=d%3De>; rel="next"'


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_following_the_links_gives_everything_once_and_ends(client: TestClient, limit: int) -> None:
    seen, path = [], f"/shelves/1/books?limit={limit}"
    while path:
        answer = client.get(path)
        seen.append(answer.json())
        path = answer.links.get("next", {}).get("url", "")

    assert [name for names in seen for name in names] == NAMES
    assert all(len(names) == limit for names in seen[:-1])
    assert seen[-1]


@pytest.mark.parametrize("limit", [5, 100])
def test_the_last_page_has_no_link(client: TestClient, limit: int) -> None:
    assert "Link" not in client.get(f"/shelves/1/books?limit={limit}").headers


@pytest.mark.parametrize("limit", ["0", "-1", "101", "x", "", "1.5"])
def test_a_limit_is_1_to_100(client: TestClient, limit: str) -> None:
    assert client.get(f"/shelves/1/books?limit={limit}").status_code == 422
