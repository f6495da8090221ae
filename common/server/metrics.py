"""GET /metrics, for operators; on the event loop, so that it answers under overload, too."""

from fastapi import Request, Response

from common.api.routing import router
from common.errors import NotFound
from common.operators import is_operator, operators_only
from common.telemetry import metrics
from common.telemetry.instruments import Switch

metrics_router = router("metrics")


@metrics_router.get("/metrics", include_in_schema=False)
async def scrape(request: Request) -> Response:
    """All that this process has recorded."""
    peer = request.client.host if request.client else None
    if not is_operator(peer, request.scope["headers"], request.app.state.status_token):
        raise operators_only()
    if not Switch.is_on:
        raise NotFound("metrics_off", "METRICS is off.")
    return Response(metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})
