"""One call of an instance, as it is measured."""

import time
from typing import Self

from common.telemetry import metrics


class Call:
    """Times a call, and counts it by its status, or by the error that it met."""

    __slots__ = ("_began", "_labels", "status")

    def __init__(self, service_name: str, method: str) -> None:
        self._labels = (service_name, metrics.method_label(method))
        self.status: int | str = ""

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        error = kind.__name__ if kind else ""
        metrics.calls.record(time.perf_counter() - self._began, *self._labels, self.status, error)
