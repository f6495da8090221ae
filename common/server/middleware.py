"""What every request passes: the request context, the access log, HEAD."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.telemetry.context import begin_from, outgoing_raw

access_log = logging.getLogger("access")

# In the log, as nginx has it: nobody was left to answer.
CLIENT_GONE = 499

# What machines ask every few seconds is not worth a line each, except when debugging.
MACHINES_ASK = ("/livez", "/health", "/heartbeat/", "/services")


class RequestContext:
    """ASGI middleware: accept or make the request id and the trace, return both, log the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin_from(scope["headers"])
        context = outgoing_raw()
        started = time.perf_counter()
        status = CLIENT_GONE

        async def send_with_context(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *context]
            await send(message)

        try:
            await self.app(scope, receive, send_with_context)
        except Exception:  # Starlette answers it, outside of this
            status = 500
            raise
        finally:
            _log_access(scope, status, time.perf_counter() - started)


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    level = logging.DEBUG if scope["path"].startswith(MACHINES_ASK) else logging.INFO
    if access_log.isEnabledFor(level):
        path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
        access_log.log(level, "%s %s %d %.1f ms", scope["method"], path, status, seconds * 1000)


class HeadAsGet:
    """ASGI middleware: HEAD is GET without the body, which uvicorn leaves out (RFC 9110, §9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
