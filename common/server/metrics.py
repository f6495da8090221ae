"""GET /metrics, for operators; not in the endpoints' threads, so that it answers under overload, too."""

import asyncio

from fastapi import Request, Response

from common.api.routing import router
from common.operators import require_metrics
from common.telemetry import metrics

metrics_router = router("metrics")


@metrics_router.get("/metrics", include_in_schema=False)
async def scrape(request: Request) -> Response:
    """All that this process has recorded."""
    peer = request.client.host if request.client else None
    require_metrics(peer, request.scope["headers"], request.app.state.status_token)
    # How full a tube is, Beanstalkd says: the event loop does not wait for that.
    text = await asyncio.to_thread(metrics.exposition)
    return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})
