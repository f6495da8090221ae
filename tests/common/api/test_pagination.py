"""Pages of a list, and the links between them."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from common.api.pagination import Limit, paginate, paginate_both_ways
from tests.pages import pages

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

    @app.get("/films")
    def films(
        request: Request,
        response: Response,
        limit: Limit = 20,
        before: str | None = None,
        after: str | None = None,
    ) -> list[str]:
        if after is None:
            found = NAMES[NAMES.index(before) + 1 if before else 0 :][: limit + 1]
        else:
            found = NAMES[: NAMES.index(after)][-limit - 1 :]
        return list(paginate_both_ways(found, limit, after, str, request, response))

    with TestClient(app) as client:
        yield client


def test_a_list_is_an_array(client: TestClient) -> None:
    assert client.get("/shelves/1/books").json() == NAMES


def test_the_link_is_a_path_with_the_same_limit_from_the_last_one_on(client: TestClient) -> None:
    answer = client.get("/shelves/1/books?limit=3", headers={"Host": "elsewhere.example"})

    assert answer.headers["Link"] == '</shelves/1/books?limit=3&before=d%3De>; rel="next"'


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_following_the_links_gives_everything_once_and_ends(client: TestClient, limit: int) -> None:
    seen = [page.json() for page in pages(client, f"/shelves/1/books?limit={limit}")]

    assert [name for names in seen for name in names] == NAMES
    assert all(len(names) == limit for names in seen[:-1])
    assert seen[-1]


@pytest.mark.parametrize("limit", [5, 100])
def test_the_last_page_has_no_link(client: TestClient, limit: int) -> None:
    assert "Link" not in client.get(f"/shelves/1/books?limit={limit}").headers


@pytest.mark.parametrize("limit", ["0", "-1", "101", "x", "", "1.5"])
def test_a_limit_is_1_to_100(client: TestClient, limit: str) -> None:
    assert client.get(f"/shelves/1/books?limit={limit}").status_code == 422


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_following_the_links_there_and_back_gives_everything_once(client: TestClient, limit: int) -> None:
    there = [page.json() for page in pages(client, f"/films?limit={limit}")]
    *back, end = (page.json() for page in pages(client, f"/films?limit={limit}&after=%C3%BC", "prev"))

    assert [name for page in there for name in page] == NAMES
    assert [name for page in reversed(back) for name in page] == NAMES[:-1]
    assert end == []


def test_a_page_after_a_cursor_links_to_both_its_neighbours(client: TestClient) -> None:
    answer = client.get("/films?limit=2&after=f")

    assert answer.json() == ["c", "d=e"]
    assert answer.headers["Link"] == (
        '</films?limit=2&before=d%3De>; rel="next", </films?limit=2&after=c>; rel="prev"'
    )


def test_the_first_page_links_to_what_will_be_newer(client: TestClient) -> None:
    assert client.get("/films").headers["Link"] == '</films?limit=20&after=a%26b>; rel="prev"'


def test_an_empty_page_has_no_link(client: TestClient) -> None:
    answer = client.get("/films?after=a%26b")

    assert (answer.json(), "Link" in answer.headers) == ([], False)


@pytest.mark.parametrize("path", ["/shelves/1/books", "/films"])
def test_a_link_keeps_the_filters_of_the_list(client: TestClient, path: str) -> None:
    link = client.get(f"{path}?kind=a%26b&limit=2&kind=%C3%BC").links["next"]["url"]

    assert link == f"{path}?kind=a%26b&kind=%C3%BC&limit=2&before=c"
