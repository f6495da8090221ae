"""The log: text for people, JSON for machines."""

import asyncio
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TextIO

from common.telemetry.context import Tracing, request_id, traceparent
from common.telemetry.sampling import is_sampled

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 60
# A line waits no longer to be written with others. A process that is killed loses those that wait.
FLUSH_SECONDS = 0.01


class TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        # One event, one line, whatever a client has put into it.
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{at} {record.levelname:7} {record.name}: {message} [{request_id.get()}]"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """A line for machines, joined by hand: that takes half the time of a dict and `json.dumps`.

    `process` is in each line: which service, which instance, which version. So are a record's own `members`.
    """

    def __init__(self, process: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._process = "".join(
            f", {quoted(name)}: {quoted(value)}" for name, value in (process or {}).items()
        )

    def format(self, record: logging.LogRecord) -> str:
        line = (
            f'{{"time": "{_second(int(record.created))}.{int(record.created % 1 * 1e6):06}Z", '
            f'"level": "{record.levelname.lower()}", "logger": {quoted(record.name)}, '
            f'"message": {quoted(record.getMessage())}, "request_id": {quoted(request_id.get())}, '
            f'"traceparent": "{traceparent.get()}"{_span_ids()}{self._process}'
        )
        if members := getattr(record, "members", ""):
            line += f", {members}"
        if record.exc_info:
            line += f', "exception": {quoted(self.formatException(record.exc_info))}'
        return line + "}"


def _span_ids() -> str:
    """As OpenTelemetry wants them in logs that are not its own, where there are spans to be found."""
    if not (Tracing.is_on and is_sampled(trace := traceparent.get())):
        return ""
    return f', "trace_id": "{trace[3:35]}", "span_id": "{trace[36:52]}"'


@lru_cache(1)
def _second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of some milliseconds of an event loop in one go.

    A warning is written at once, with the lines before it, and so is a line from outside of an event loop.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._flushing_loop: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(self.format(record) + self.terminator)
            if record.levelno >= logging.WARNING or not self._is_flushed_soon():
                self.flush()
        except Exception:  # as all of logging's handlers: no line is worth a request
            self.handleError(record)

    def _is_flushed_soon(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if loop is not self._flushing_loop:
            self._flushing_loop = loop
            loop.call_later(FLUSH_SECONDS, self._flush_waiting)
        return True

    def _flush_waiting(self) -> None:
        self._flushing_loop = None
        self.flush()


class RepeatedWarning:
    """Logs the same warning at most once a minute."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._text = ""
        self._again_at = -math.inf

    def __call__(self, text: str, detail: str = "") -> None:
        """`detail` may be another one each time."""
        now = self._clock()
        if text == self._text and now < self._again_at:
            return
        self._text, self._again_at = text, now + REPEAT_SECONDS
        self._logger.warning(f"{text}: {detail}" if detail else text)


class OutageWarning(RepeatedWarning):
    """The same of what has worked before: a process may well start before its stores."""

    _has_worked = False

    def worked(self) -> None:
        self._has_worked = True

    def __call__(self, text: str, detail: str = "") -> None:
        if self._has_worked:
            super().__call__(text, detail)


def configure_logging(level: str, log_format: str | None, process: Mapping[str, str] | None = None) -> None:
    """Log to standard output: text on a terminal, JSON elsewhere, or as `log_format` says.

    `process` is what JSON lines say of the process.
    """
    log_format = log_format or ("text" if sys.stdout.isatty() else "json")
    lines = LineHandler(sys.stdout)
    lines.setFormatter(TextFormatter() if log_format == "text" else JsonFormatter(process))
    # No line has these (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)
    # The client libraries say at info what our own lines say already.
    for noisy in ("httpx", "httpcore", "botocore", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
