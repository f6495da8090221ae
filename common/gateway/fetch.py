"""One whole document from an instance, bounded in size."""

import httpx

from common.gateway.transport import AiohttpTransport
from common.telemetry import context


async def fetch(
    transport: AiohttpTransport,
    netloc: str,
    path: str,
    max_bytes: int,
    headers: dict[str, str] | None = None,
) -> bytes:
    """What a GET of this path has; nothing bounds the time of it all but the caller.

    Raises httpx.HTTPError when there is no success, ValueError when it is too large.
    """
    sent = context.outgoing_headers() | (headers or {})
    extensions = {"target": path, "raw_headers": sent.items()}
    request = httpx.Request("GET", f"http://{netloc}", extensions=extensions)
    response = await transport.handle_async_request(request)
    response.request = request
    try:
        response.raise_for_status()
        body = b""
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                raise ValueError("too large")
    finally:
        await response.aclose()
    return body
