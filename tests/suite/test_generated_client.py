"""A client that a generator makes of the API document works."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.suite.conftest import Suite

pytestmark = pytest.mark.starts

# The name of the package, which no other module has.
CLIENT = "microblog_client"


@pytest.fixture(scope="module")
def load(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Loads a module of a client that is generated from the gateway's document."""
    folder = tmp_path_factory.mktemp("generated")
    # It would format the code with a ruff on the PATH.
    (folder / "config.yml").write_text("post_hooks: []")
    command = [Path(sys.executable).parent / "openapi-python-client", "generate", "--meta=none"]
    command += [f"--url={suite.gateway.base_url}/openapi.json", f"--output-path={folder / CLIENT}"]
    command += ["--config=config.yml", "--fail-on-warning"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield lambda name: import_module(f"{CLIENT}.{name}")


def test_a_generated_client_registers_signs_in_writes_and_reads(
    suite: Suite, load: Callable[[str], Any]
) -> None:
    models = load("models")
    url = str(suite.gateway.base_url)
    user = models.NewUser(username="generated", password="correct horse battery staple")
    credentials = models.Credentials(username=user.username, password=user.password)
    with load("client").Client(url) as client:
        profile = load("api.users.register_register_post").sync(client=client, body=user)
        token = load("api.users.login_login_post").sync(client=client, body=credentials)
        with load("client").AuthenticatedClient(url, token.access_token) as signed_in:
            post = models.NewPost(text="Written by a machine.")
            written = load("api.timelines.write_posts_post").sync(client=signed_in, body=post)
        read = load("api.timelines.post_posts_id_post_id_get").sync(written.id, client=client)

    assert profile.username == read.username == "generated"
    assert (read.id, read.text) == (written.id, post.text)


def test_a_generated_client_reads_an_error(suite: Suite, load: Callable[[str], Any]) -> None:
    with load("client").Client(str(suite.gateway.base_url)) as client:
        problem = load("api.users.profile_users_username_get").sync("no_such_user", client=client)

    assert (problem.status, problem.code) == (404, "user_not_found")


def test_every_module_of_a_generated_client_can_be_imported(load: Callable[[str], Any]) -> None:
    (folder,) = load("api").__path__
    for path in Path(folder).rglob("*.py"):
        load(".".join(path.relative_to(Path(folder).parent).with_suffix("").parts))
