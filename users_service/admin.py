"""Delete an account, give it another password, or revoke its tokens, without its password.

The command works on the database, which it finds by the settings of the users service. That service has to
run: it tells the others what this command has done. Standard error has a line for each change.
"""

import argparse
import asyncio
import logging
import secrets
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from common.errors import BadRequest, Conflict, Problem
from users_service import arguments, errors
from users_service.models import Password, is_name, name_as_password
from users_service.passwords import Passwords
from users_service.settings import UsersSettings
from users_service.store import UsersStore

logger = logging.getLogger(__name__)

PASSWORD: TypeAdapter[str] = TypeAdapter(Password)
RANDOM_BYTES = 16


class Admin:
    """What an operator may do with an account. All raise NotFound, and what the store's `outages` are.

    `lifetime` is that of tokens.
    """

    def __init__(self, store: UsersStore, lifetime: timedelta) -> None:
        self._store = store
        self._lifetime = lifetime

    def delete(self, username: str) -> None:
        """Begin the deletion of an account. Raises Conflict for a password that changes meanwhile."""
        # No token has this id: only services may ask how far the deletion is.
        if self._store.deletions.begin(username, self._hash(username), str(uuid4()), self._lifetime) is None:
            raise changed_meanwhile(username)

    def reset_password(self, username: str, password: str) -> None:
        """Change a password, and revoke all tokens. Raises Conflict for one that changes meanwhile."""
        old, new = self._hash(username), asyncio.run(Passwords().hash(password))
        if not self._store.revocations.change_password(username, old, new, self._lifetime):
            raise changed_meanwhile(username)

    def revoke(self, username: str) -> None:
        """Revoke all tokens of a user."""
        if not self._store.revocations.revoke_all(username, self._lifetime):
            raise errors.user_not_found(username)

    def _hash(self, username: str) -> str:
        hashed, _ = self._store.credentials(username)
        if hashed is None:
            raise errors.user_not_found(username)
        return hashed


def changed_meanwhile(username: str) -> Conflict:
    return Conflict("changed_meanwhile", f"The password of {username} has just changed: try again.")


def new_password(username: str, *, is_given: bool) -> str:
    """The line on standard input, or a random password. Raises BadRequest."""
    if not is_given:
        return secrets.token_urlsafe(RANDOM_BYTES)
    try:
        password = PASSWORD.validate_python(sys.stdin.readline().rstrip("\r\n"))
    except ValidationError as exc:
        raise BadRequest("invalid_password", exc.errors(include_input=False)[0]["msg"]) from exc
    if is_name(password, username):
        raise BadRequest("invalid_password", name_as_password().message())
    return password


def delete(admin: Admin, options: argparse.Namespace) -> None:
    admin.delete(options.username)
    logger.info("deletion of %s begun: the services delete what they have of it", options.username)


def reset_password(admin: Admin, options: argparse.Namespace) -> None:
    password = new_password(options.username, is_given=options.stdin)
    admin.reset_password(options.username, password)
    if not options.stdin:
        sys.stdout.write(f"{password}\n")
    logger.info("password of %s reset, and all tokens revoked", options.username)


def revoke(admin: Admin, options: argparse.Namespace) -> None:
    admin.revoke(options.username)
    logger.info("all tokens of %s revoked", options.username)


COMMANDS: dict[str, tuple[Callable[[Admin, argparse.Namespace], None], str]] = {
    "delete": (delete, "delete an account for good, in every service"),
    "reset-password": (reset_password, "print a new random password, and revoke all tokens"),
    "revoke": (revoke, "revoke all tokens of a user"),
}


def is_confirmed(options: argparse.Namespace) -> bool:
    if options.yes:
        return True
    sys.stderr.write(f"{options.command} {options.username}? Type yes: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() == "yes"


def run(settings: UsersSettings, options: argparse.Namespace) -> None:
    """Raises Problem, and what the store's `outages` are."""
    with closing(UsersStore.connect(settings.database)) as store:
        # A ping creates nothing: a wrong name of the database is an error, and not a new database.
        store.ping()
        store.prepare()
        perform, _ = COMMANDS[options.command]
        perform(Admin(store, timedelta(minutes=settings.jwt_expires_minutes)), options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m users_service.admin",
        description=__doc__,
        epilog="Exit code 1: there is no such user, the database is unavailable, or you did not confirm.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, does) in COMMANDS.items():
        command = commands.add_parser(name, help=does, description=does.capitalize() + ".")
        command.add_argument("username", type=arguments.username)
        command.add_argument("--yes", action="store_true", help="do not ask for confirmation")
        if name == "reset-password":
            command.add_argument(
                "--stdin", action="store_true", help="read the new password from standard input; needs --yes"
            )
    options = parser.parse_args()
    if getattr(options, "stdin", False) and not options.yes:
        parser.error("--stdin needs --yes: standard input is the password")
    return options


def main() -> None:
    options, settings = read_options(), UsersSettings.read()
    # Standard output is for the password alone.
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s", stream=sys.stderr, force=True)
    if not is_confirmed(options):
        sys.exit("not confirmed: nothing was done")
    try:
        run(settings, options)
    except Problem as exc:
        sys.exit(exc.detail)
    except UsersStore.outages as exc:
        reason, _, _ = str(exc).partition("\n")  # libpq explains itself over several lines
        sys.exit(f"PostgreSQL is unavailable: {reason}")


if __name__ == "__main__":
    main()
