"""Starts the backing servers and every line of the Procfile, says where to go, stops it all on Ctrl-C."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from threading import Event

import backing_services
import server_processes
from backing_services import DATA, MAIL_PORT, say

READY_SECONDS = 60
STOP_SECONDS = 7
# What runs here is asked directly, whatever `http_proxy` says.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PROCFILE_LINE = re.compile(r"^(?P<name>\w+): (PORT=\$\(\((?P<port>\d+))?", re.MULTILINE)

BANNER = """
  Microblog is up.

    Try it        {url}/docs
    Or paste      these four lines, as often as you like

curl -s {url}/register --json '{{"username": "alice", "password": "correct horse"}}'
TOKEN=$(curl -s {url}/login -d 'username=alice&password=correct horse' | cut -d'"' -f4)
POST=$(curl -s {url}/posts -H "Authorization: Bearer $TOKEN" --json '{{"text": "Hello!"}}' | cut -d'"' -f4)
curl -s -X POST {url}/likes/$POST -H "Authorization: Bearer $TOKEN"

    Mails         {mails}
    Data          {data}
    Stop          Ctrl-C
"""


class StartupAborted(Exception):
    """It is over before it has begun."""


def main() -> None:
    stop = backing_services.until_stopped()
    variables = backing_services.environment()
    try:
        ports = _free_ports(Path("Procfile").read_text())
        with backing_services.BackingServices(backing_services.expected(variables)):
            _run(variables, f"http://localhost:{ports['gateway']}", stop)
    except (StartupAborted, backing_services.WrongServer, server_processes.NotStarted) as exc:
        sys.exit(str(exc))


def _free_ports(procfile: str) -> dict[str, int]:
    """The port of every line that has one, if all of them are free."""
    ports = {line["name"]: int(line["port"]) for line in PROCFILE_LINE.finditer(procfile) if line["port"]}
    for name, port in ports.items():
        if not server_processes.is_free(port):
            raise StartupAborted(
                f"Port {port} is taken by something else.\n"
                f"Stop what runs there, or change the port in the Procfile's line `{name}:`."
            )
    return ports


def _run(variables: dict[str, str], url: str, stop: Event) -> None:
    # honcho lets .env win over the environment, so it gets none: it is in the variables already.
    command = [sys.executable, "-m", "honcho", "-e", os.devnull, "start", "-p", "5000"]
    with subprocess.Popen(command, env=_for_processes(variables), start_new_session=True) as suite:
        try:
            _wait_until_ready(url, suite, stop)
            while not stop.wait(0.2) and suite.poll() is None:
                pass
            if suite.poll() is not None:
                raise StartupAborted("The suite has stopped by itself; the reason is above.")
        finally:
            _stop(suite)


def _for_processes(variables: dict[str, str]) -> dict[str, str]:
    given = {"PATH": f"{Path(sys.executable).parent}:{variables.get('PATH', os.defpath)}"}
    if not variables.get("SMTP_HOST"):
        given |= {"SMTP_HOST": server_processes.HOST, "SMTP_PORT": str(MAIL_PORT)}
    if not variables.get("LOG_FORMAT"):
        given["LOG_FORMAT"] = "text"
    return variables | given


def _wait_until_ready(url: str, suite: "subprocess.Popen[bytes]", stop: Event) -> None:
    missing = "the gateway"
    for _ in range(READY_SECONDS * 5):
        if stop.wait(0.2) or suite.poll() is not None:
            return
        missing = _missing(url)
        if not missing:
            mails = (
                "go to SMTP_HOST" if backing_services.environment().get("SMTP_HOST") else f"{DATA}/mail/new"
            )
            say(BANNER.format(url=url, data=DATA, mails=mails))
            return
    say(f"\nNot ready after {READY_SECONDS} s: {missing}. What it says itself is above.\n")


def _missing(url: str) -> str:
    """Which services the gateway misses; nothing when all is well."""
    try:
        with DIRECTLY.open(f"{url}/health", timeout=2) as answer:
            health = json.load(answer)
    except urllib.error.HTTPError as exc:
        health = json.load(exc)
    except OSError:
        return "the gateway"
    return ", ".join(name for name, state in health["checks"].items() if state != "ok")


def _stop(suite: "subprocess.Popen[bytes]") -> None:
    suite.terminate()
    try:
        suite.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        suite.kill()


if __name__ == "__main__":
    main()
