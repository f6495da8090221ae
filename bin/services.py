"""Starts the backing servers that do not run yet, and stops them on Ctrl-C."""

import sys

import backing_services
import server_processes
from backing_services import say

HINT = """
Now start the suite in another terminal:
{mail}
  export PATH="$PWD/.venv/bin:$PATH"
  foreman start            # or: honcho start

Ctrl-C stops these servers."""

CATCH_MAIL = f"""
  export SMTP_PORT={backing_services.MAIL_PORT}    # mails become files in .data/mail/new"""


def main() -> None:
    stop = backing_services.until_stopped()
    variables = backing_services.environment()
    try:
        with backing_services.BackingServices(backing_services.expected(variables)):
            say(HINT.format(mail="" if variables.get("SMTP_HOST") else CATCH_MAIL))
            stop.wait()
    except (backing_services.WrongServer, server_processes.NotStarted) as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
