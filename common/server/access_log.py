"""The access log: a line for each request."""

import logging
import time
from json.encoder import encode_basestring_ascii as quoted

from starlette.types import Scope

access_log = logging.getLogger("access")


def raw_path(scope: Scope) -> str:
    """The path as the client sent it, without the query."""
    path: bytes = scope.get("raw_path", b"")
    return path.decode("ascii", "backslashreplace")


class AccessRecord(logging.LogRecord):
    """A request and its response, as a record of the log.

    It begins as a copy of an empty one: logging makes twenty calls to find
    out what no line has, such as the file and the thread that it is from.
    """

    def __init__(self, level: int, scope: Scope, route: str, status: int, seconds: float, size: int) -> None:
        vars(self).update(_EMPTY[level])
        self.created = time.time()
        self.msecs = self.created % 1 * 1000
        self.args = (scope["method"], raw_path(scope), status, seconds * 1000)
        self._scope = scope
        self._route = route
        self._status = status
        self._seconds = seconds
        self._size = size

    @property
    def members(self) -> str:
        """The same and more, as members of a JSON object."""
        method, client = self._scope["method"], self._scope["client"]
        return (
            f'"method": {quoted(method)}, "route": {quoted(self._route)}, "status": {self._status}, '
            f'"duration": {round(self._seconds, 6)}, "bytes": {0 if method == "HEAD" else self._size}, '
            f'"client": {quoted(client[0] if client else "")}'
        )


_EMPTY = {
    level: vars(logging.LogRecord(access_log.name, level, "", 0, "%s %s %d %.1f ms", (), None))
    for level in (logging.DEBUG, logging.INFO)
}
