"""GET /livez and GET /health."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field

from common.api.headers import RETRY_AFTER
from common.api.routing import router
from common.discovery.registration import PROCESS_ID, PROCESS_ID_HEADER
from common.errors import RETRY_SECONDS
from common.fields import is_none
from common.server.dependency import Dependency
from common.version import VERSION

logger = logging.getLogger(__name__)


class Live(BaseModel):
    """That the process runs."""

    status: Literal["ok"] = "ok"


class Health(BaseModel):
    """`degraded` is when the service goes on without something, `unavailable` when it cannot."""

    status: Literal["ok", "degraded", "unavailable"]
    service: str
    version: str
    checks: dict[str, Literal["ok", "unavailable"]]
    reasons: dict[str, str] | None = Field(
        None, description="Why each of the unavailable ones is.", exclude_if=is_none
    )
    warnings: dict[str, str] | None = Field(
        None, description="What an operator should see to, though the service works.", exclude_if=is_none
    )


def unavailable(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What an API document says of a 503 response about health."""
    return {503: {"model": model, "description": "Unavailable", "headers": RETRY_AFTER}}


live_router = router("health")
health_router = router("health")


@live_router.get("/livez")
async def live(response: Response) -> Live:
    """Whether the process runs; nothing else is looked at."""
    response.headers[PROCESS_ID_HEADER] = PROCESS_ID
    return Live()


@health_router.get("/health", responses=unavailable(Health))
async def health(request: Request, response: Response) -> Health:
    """Whether the service can do its work, and which of the things it needs are there."""
    state = request.app.state
    found = await check(state.name, state.dependencies)
    if found.status == "unavailable":
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return found


async def check(service: str, dependencies: Sequence[Dependency]) -> Health:
    """Check all dependencies at once."""
    conditions = await asyncio.gather(*(dependency.condition() for dependency in dependencies))
    found = {
        dependency.name: condition for dependency, condition in zip(dependencies, conditions, strict=True)
    }
    missing = [dependency for dependency in dependencies if not found[dependency.name].is_healthy]
    return Health(
        status="ok"
        if not missing
        else "unavailable"
        if any(dependency.is_required for dependency in missing)
        else "degraded",
        service=service,
        version=VERSION,
        checks={name: "ok" if condition.is_healthy else "unavailable" for name, condition in found.items()},
        reasons={name: condition.reason for name, condition in found.items() if condition.reason} or None,
        warnings={name: condition.warning for name, condition in found.items() if condition.warning} or None,
    )
