"""GET /livez, GET /health and GET /metrics of a worker, in the words of those of services."""

import json
from http import HTTPStatus

from common.discovery.registration import PROCESS_ID, PROCESS_ID_HEADER
from common.errors import (
    PROBLEM_JSON,
    RETRY_SECONDS,
    MethodNotAllowed,
    NotFound,
    Problem,
    outage_reason,
    problem_details,
)
from common.jobs.conditions import Conditions, Kinds
from common.operators import require_metrics
from common.telemetry import context, metrics
from common.version import VERSION
from common.worker.listener import Request, Response


class WorkerHealth:
    """What a worker responds: whether its loops can work, as they met what they need the last time."""

    def __init__(self, name: str, needs: Kinds, conditions: Conditions, status_token: str) -> None:
        self._name = name
        self._needs = needs
        self._conditions = conditions
        self._status_token = status_token

    def respond(self, request: Request) -> Response:
        context.start_from(request.headers)
        try:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed("method_not_allowed", "Only GET and HEAD.", {"Allow": "GET, HEAD"})
            match request.path:
                case "/livez":
                    return _json({"status": "ok"}, headers={PROCESS_ID_HEADER: PROCESS_ID})
                case "/health":
                    return self._health()
                case "/metrics":
                    return self._metrics(request)
                case _:
                    raise NotFound("not_found", "There is no such path here.")
        except Problem as problem:
            return _render(problem)

    @property
    def is_healthy(self) -> bool:
        return not self._conditions.by_name(self._needs)

    def _health(self) -> Response:
        outages = self._conditions.by_name(self._needs)
        health = {
            "status": "unavailable" if outages else "ok",
            "service": self._name,
            "version": VERSION,
            "checks": {name: "unavailable" if name in outages else "ok" for name in self._needs},
        }
        if not outages:
            return _json(health)
        reasons = {name: outage_reason(outage) for name, outage in outages.items()}
        retry = {"Retry-After": str(RETRY_SECONDS)}
        return _json(health | {"reasons": reasons}, HTTPStatus.SERVICE_UNAVAILABLE, retry)

    def _metrics(self, request: Request) -> Response:
        require_metrics(request.peer, request.headers, self._status_token)
        return Response(HTTPStatus.OK, metrics.exposition(), {"Content-Type": metrics.CONTENT_TYPE})


def _json(
    body: object, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    return Response(
        status,
        json.dumps(body, separators=(",", ":")).encode(),
        {"Content-Type": "application/json", **(headers or {})},
    )


def _render(problem: Problem) -> Response:
    body = json.dumps(problem_details(problem, context.request_id.get()), separators=(",", ":")).encode()
    return Response(problem.status, body, {"Content-Type": PROBLEM_JSON, **problem.headers})
