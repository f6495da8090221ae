"""Whatever the API document lets one send, and much that it does not: every answer is a documented one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.suite.conftest import Suite

pytestmark = pytest.mark.starts

# Not unsupported_method: POST /likes/popular is a like of what is no id, and so it is answered.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "negative_data_rejection",
)

# By itself it would register and sign in. Among the statuses that it takes for a refusal it lacks 414:
# two hundred ids are not only too many, they also make the URL too long.
CONFIGURATION = """
auth.auto-signup = false
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 414, 415, 422, 428, 429, "5xx"]
"""


@pytest.mark.fuzzes
@pytest.mark.parametrize("is_signed_in", [False, True], ids=["anonymous", "signed in"])
def test_every_answer_is_a_documented_one(
    suite: Suite, request: pytest.FixtureRequest, tmp_path: Path, is_signed_in: bool
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    headers = suite.sign_up("fuzzer") if is_signed_in else {}
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{suite.gateway.base_url}/openapi.json"]
    command += ["--exclude-path=/logout"]  # all that follows would be 401
    command += ["--exclude-path=/stream"]  # it has no end
    command += [f"--checks={','.join(CHECKS)}", "--mode=all", "--continue-on-failure", "--no-color"]
    command += [f"--max-time={request.config.getoption('--fuzz-seconds')}"]
    command += [f"--seed={request.config.getoption('--fuzz-seed')}"]
    command += [f"--header={name}: {value}" for name, value in headers.items()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    print(done.stdout)  # shown by bin/fuzz, the seed in it

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
