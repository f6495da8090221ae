"""One whole document from an instance, bounded in size."""

import httpx

from common.gateway.transport import Transport
from common.telemetry import context


class UnexpectedStatus(httpx.HTTPError):
    """The response is no success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


async def fetch(
    transport: Transport,
    netloc: str,
    path: str,
    max_bytes: int,
    headers: dict[str, str] | None = None,
) -> bytes:
    """What a GET of this path has; nothing bounds the time of it all but the caller.

    Raises UnexpectedStatus, another httpx.HTTPError, or ValueError when it is too large.
    """
    sent = context.outgoing_headers() | (headers or {})
    response = await transport.send("GET", netloc, path, sent.items())
    try:
        if not 200 <= response.status < 300:
            raise UnexpectedStatus(response.status)
        body = b""
        while not response.is_complete:
            body += await response.read()
            if len(body) > max_bytes:
                raise ValueError("too large")
    finally:
        response.close()
    return body
