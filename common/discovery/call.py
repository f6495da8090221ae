"""One call of an instance, as it is measured."""

import time
from http import HTTPStatus
from typing import Self

from common.discovery.models import Instance
from common.telemetry import metrics, traces
from common.telemetry.context import Tracing
from common.telemetry.traces import MAX_PATH, Attributes


class Call:
    """Times a call, and counts it by its status, or by the error that it met.

    It is a span: what is sent has to be made inside of it, to carry its trace.
    """

    __slots__ = ("_began", "_instance", "_method", "_path", "_span", "status")

    def __init__(self, instance: Instance, method: str, path: str) -> None:
        self._instance = instance
        self._method = metrics.method_label(method)
        self._path = path
        self.status: int | str = ""

    def __enter__(self) -> Self:
        self._span = traces.child("CLIENT", self._method, self._attributes) if Tracing.is_on else None
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        error = kind.__name__ if kind else ""
        labels = (self._instance.service_name, self._method, self.status, error)
        metrics.calls.record(time.perf_counter() - self._began, *labels)
        if self._span:
            status = {"http.response.status_code": self.status} if self.status else {}
            is_error = self.status and int(self.status) >= HTTPStatus.BAD_REQUEST
            self._span.end(error or (str(self.status) if is_error else ""), attributes=status)

    def _attributes(self) -> Attributes:
        """Without the query, which may say anything."""
        to = self._instance
        return {
            "http.request.method": self._method,
            "url.full": f"http://{to.netloc}{self._path[:MAX_PATH]}",
            "server.address": to.host,
            "server.port": to.port,
            "peer.service": to.service_name,
        }
