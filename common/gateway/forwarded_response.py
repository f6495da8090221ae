"""An instance's response, as it is passed on to the client."""

import logging

import httpx
from starlette.types import Send

from common.discovery.balancer import Attempt
from common.gateway.headers import HOP_BY_HOP, end_to_end_headers
from common.gateway.transport import InstanceResponse

logger = logging.getLogger(__name__)

# uvicorn and the request context set these in every response.
STRIPPED_RESPONSE_HEADERS = HOP_BY_HOP | {b"date", b"x-request-id", b"traceparent"}


async def send_response(response: InstanceResponse, attempt: Attempt, send: Send) -> None:
    try:
        await send_head(response, send)
        await send_body(response, send)
    except httpx.TransportError as exc:
        # uvicorn closes the connection in the middle of the response: the client sees that this is not all.
        attempt.fail()
        logger.warning("%s broke off in the middle of a response: %r", attempt.instance.netloc, exc)
    finally:
        response.close()


async def send_head(response: InstanceResponse, send: Send) -> None:
    end_to_end = end_to_end_headers(response.headers)
    headers = [header for header in end_to_end if header[0] not in STRIPPED_RESPONSE_HEADERS]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})


async def send_body(response: InstanceResponse, send: Send) -> None:
    """Pass on what comes, as it comes."""
    is_complete = False
    while not is_complete:
        chunk = await response.read()
        is_complete = response.is_complete
        await send({"type": "http.response.body", "body": chunk, "more_body": not is_complete})
