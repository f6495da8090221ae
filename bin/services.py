"""Starts the backing servers that do not run yet, and stops them on Ctrl-C."""

import sys

import servers
import stores
from stores import say

HINT = """
Now start the suite in another terminal:
{mail}
  export PATH="$PWD/.venv/bin:$PATH"
  foreman start            # or: honcho start

Ctrl-C stops these servers."""

CATCH_MAIL = f"""
  export SMTP_PORT={stores.MAIL_PORT}    # mails become files in .data/mail/new"""


def main() -> None:
    stop = stores.until_stopped()
    variables = stores.environment()
    try:
        with stores.Stores(stores.expected(variables)):
            say(HINT.format(mail="" if variables.get("SMTP_HOST") else CATCH_MAIL))
            stop.wait()
    except (stores.Misplaced, servers.NotStarted) as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
