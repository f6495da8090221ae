"""The status page of a running suite, as JSON and in a browser: Debian's Chromium, without a window."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import greenstalk
import pytest
import server_processes

from tests.browser import Browser
from tests.polling import eventually
from tests.suite.conftest import PASSWORD, Suite

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
PHONE = (360, 740)
DESK = (1200, 900)

pytestmark = pytest.mark.starts


def _report(suite: Suite) -> dict[str, Any]:
    answer = suite.gateway.get("/status", headers={"Accept": "application/json"})
    report: dict[str, Any] = answer.raise_for_status().json()
    return report


@pytest.fixture
def buried(own_beanstalkd: server_processes.Server) -> Iterator[str]:
    """A tube with a job that its worker cannot read."""
    with greenstalk.Client(("127.0.0.1", own_beanstalkd.port), encoding=None, use="posts") as tubes:
        number = tubes.put(b"junk")
        yield "posts"
        eventually(lambda: tubes.stats_job(number)["state"] == "buried")
        tubes.delete(number)


def test_every_process_is_up_and_measured(suite: Suite) -> None:
    def measured() -> list[Any] | None:
        report = _report(suite)
        processes = [*report["services"], *report["workers"]]
        return processes if all(one["per_second"] is not None for one in processes) else None

    processes = eventually(measured)

    assert {one["name"] for one in processes} == set(suite.ports)
    assert {(one["state"], one["failure"]) for one in processes} == {("up", "")}
    assert all(one["age_seconds"] > 0 and one["version"] for one in processes)


def test_every_store_can_be_used(suite: Suite) -> None:
    stores = eventually(lambda: (found := _report(suite)["stores"]) and len(found) >= 6 and found)

    assert {one["name"] for one in stores} == {"postgres", "redis", "dynamodb", "beanstalkd"}
    assert all(one["can_use_it"] == one["processes"] == 1 for one in stores)


def test_a_buried_job_is_shown(suite: Suite, buried: str) -> None:
    tube = eventually(
        lambda: [one for one in _report(suite)["tubes"] if one["name"] == buried and one["buried"]]
    )

    assert tube[0]["buried"] == 1


def test_requests_are_shown_with_how_long_they_take(suite: Suite) -> None:
    def users() -> dict[str, Any] | None:
        suite.gateway.post("/login", data={"username": "status_nobody", "password": PASSWORD})
        [found] = [one for one in _report(suite)["services"] if one["name"] == "users"]
        return found if found["per_second"] and found["p50_seconds"] else None

    found = eventually(users)

    assert 0 < found["p50_seconds"] <= found["p99_seconds"]
    assert found["last_minute"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    with Browser(CHROMIUM, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(suite: Suite, browser: Browser) -> Browser:
    """The status page, loaded anew."""
    browser.resize(*DESK)
    browser.open(f"{suite.gateway.base_url}/status")
    return browser


def test_the_page_keeps_itself_fresh_without_a_reload(page: Browser) -> None:
    page.evaluate("window.isFirstLoad = true")
    before = page.evaluate("document.querySelector('time').textContent")

    eventually(lambda: page.evaluate("document.querySelector('time').textContent") != before)
    eventually(lambda: page.evaluate("document.querySelectorAll('polyline').length"))

    assert page.evaluate("window.isFirstLoad")


def test_the_browser_has_nothing_to_complain_of(page: Browser) -> None:
    eventually(lambda: page.evaluate("document.querySelectorAll('polyline').length"))

    assert page.complaints == []


def test_the_stylesheet_is_applied(page: Browser) -> None:
    assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"


def test_a_phone_shows_it_without_scrolling_sideways(page: Browser) -> None:
    page.resize(*PHONE)
    eventually(lambda: page.evaluate("document.querySelectorAll('polyline').length"))

    assert page.evaluate("innerWidth") == PHONE[0]
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_the_page(page: Browser, scheme: str) -> None:
    page.prefer(scheme)

    ratios = json.loads(page.evaluate((Path(__file__).parent / "contrast.js").read_text()))

    assert ratios
    assert min(ratios) >= 4.5  # WCAG 2.2, 1.4.3
