"""An account from its export to its deletion, through nine processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.polling import eventually
from tests.suite.conftest import PASSWORD, SECRETS, Suite

pytestmark = pytest.mark.starts

ROOT = Path(__file__).parents[2]
Headers = dict[str, str]


def export(suite: Suite, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "JWT_SECRET": SECRETS["JWT_SECRET"],
        "REGISTRY_URL": f"http://127.0.0.1:{suite.ports['registry']}",
        **variables,
    }
    command = [sys.executable, "-m", "users_service.export", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def post(suite: Suite, headers: Headers, text: str) -> str:
    written = suite.gateway.post("/posts", json={"text": text}, headers=headers)
    post_id: str = written.raise_for_status().json()["id"]
    return post_id


def live(suite: Suite, name: str, other: str) -> dict[str, Any]:
    """Let one user do what users do with another; the headers of both and the ids of their posts."""
    mine, theirs = suite.sign_up(name), suite.sign_up(other)
    own, others = post(suite, mine, "Mine"), post(suite, theirs, "Theirs")
    suite.gateway.patch(f"/posts/id/{own}", json={"text": "Mine, edited"}, headers=mine).raise_for_status()
    for method, path in (
        ("POST", f"/users/follow/{other}"), ("POST", f"/users/mute/{other}"), ("POST", f"/likes/{others}"),
        ("PUT", f"/posts/id/{others}/bookmark"), ("PUT", f"/posts/id/{own}/pin"),
    ):  # fmt: skip
        suite.gateway.request(method, path, headers=mine).raise_for_status()
    suite.gateway.post(f"/users/follow/{name}", headers=theirs).raise_for_status()
    return {"mine": mine, "theirs": theirs, "own": own, "others": others}


def test_an_export_has_all_of_an_account_and_is_written_whole(suite: Suite, tmp_path: Path) -> None:
    ids = live(suite, "export_alice", "export_bobby")
    for number in range(101):
        post(suite, ids["mine"], f"Post {number}")
    new = {"current_password": PASSWORD, "new_password": "battery staple"}
    suite.gateway.put("/users/export_alice/password", json=new, headers=ids["mine"]).raise_for_status()

    done = export(suite, "export_alice", "--out", str(tmp_path / "alice.json"))

    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (0, "", [tmp_path / "alice.json"])
    found = json.loads((tmp_path / "alice.json").read_text())
    assert found["profile"]["email"] == "export_alice@example.com"
    names = ("followees", "followers", "blocks", "mutes")
    assert [found[name] for name in names] == [["export_bobby"], ["export_bobby"], [], ["export_bobby"]]
    assert len({one["id"] for one in found["posts"]}) == 102
    assert [one["text"] for one in found["posts"][-1]["versions"]] == ["Mine"]
    assert [one["id"] for one in found["pins"]] == [ids["own"]]
    assert [one["id"] for one in found["bookmarks"]] == [ids["others"]]
    assert [one["post_id"] for one in found["likes"]] == [ids["others"]]
    assert found["notifications"] == []


def test_an_export_goes_to_standard_output(suite: Suite) -> None:
    suite.sign_up("export_carol")
    done = export(suite, "Export_Carol")

    assert json.loads(done.stdout)["profile"]["username"] == "export_carol"


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "message"),
    [
        (["no_such_user"], {}, 1, "There is no user no_such_user."),
        (["a b"], {}, 2, "this cannot be a username"),
        (["alice"], {"REGISTRY_URL": ""}, 1, "The users service cannot be reached now."),
        (["alice"], {"JWT_SECRET": "another"}, 1, "The users service answers 401 to GET /users/alice."),
        (["alice"], {"JWT_SECRET": ""}, 3, "JWT_SECRET"),
    ],
)
def test_an_export_that_cannot_be_made_says_why(
    suite: Suite, arguments: list[str], variables: dict[str, str], code: int, message: str
) -> None:
    done = export(suite, *arguments, **variables)

    assert done.returncode == code
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_account_that_is_deleted_is_gone_from_every_service(suite: Suite) -> None:
    ids = live(suite, "gone_alice", "gone_bobby")
    accepted = suite.gateway.post(
        "/users/gone_alice/deletion", json={"password": PASSWORD}, headers=ids["mine"]
    )
    assert accepted.status_code == 202

    for path in (f"/posts/id/{ids['own']}", "/posts/gone_alice", "/users/gone_alice"):
        eventually(lambda path=path: suite.gateway.get(path).status_code == 404)
    assert suite.gateway.get("/users/gone_bobby/followers").json() == []

    def deletion() -> dict[str, Any]:
        found: dict[str, Any] = suite.gateway.get(accepted.headers["Location"], headers=ids["mine"]).json()
        return found

    eventually(lambda: deletion()["finished_at"])
    assert deletion()["remaining"] == []
