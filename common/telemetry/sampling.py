"""Which traces are sampled, as OTEL_TRACES_SAMPLER has it."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from random import getrandbits, randrange
from typing import Self

logger = logging.getLogger(__name__)

PARENT_BASED = "parentbased_"
KINDS = ("always_on", "always_off", "traceidratio")
SAMPLERS = (*KINDS, *(PARENT_BASED + kind for kind in KINDS))
DEFAULT_SAMPLER = "parentbased_always_on"
ODD_DIGITS = frozenset("13579bdf")


def is_sampled(trace: str) -> bool:
    """Whether this `traceparent` says that its spans are exported."""
    return trace[-1:] in ODD_DIGITS


class Sampling:
    """What OpenTelemetry's samplers come to: a share of all new traces, and whose word counts in others.

    Its SDK takes 25 µs for a span that is not sampled, so it only gets the others.
    """

    def __init__(self, sampler: str, share: float | None = None) -> None:
        kind = sampler.removeprefix(PARENT_BASED)
        share = {"always_on": 1.0, "always_off": 0.0}.get(kind, 1.0 if share is None else share)
        self._is_parent_based = sampler.startswith(PARENT_BASED)
        self._bound = round(share * 2**64)

    @classmethod
    def parse(cls, sampler: str, argument: str) -> Self:
        """As the variables have it. A wrong one is warned of and ignored (SDK configuration, "Enum")."""
        sampler = sampler.lower()
        if sampler not in SAMPLERS:
            logger.warning(
                "OTEL_TRACES_SAMPLER is none of %s: %s is used", ", ".join(SAMPLERS), DEFAULT_SAMPLER
            )
            sampler = DEFAULT_SAMPLER
        return cls(sampler, _share(argument) if argument else None)

    def of_new(self) -> bool:
        """Whether a new trace is sampled."""
        return getrandbits(64) < self._bound

    def of_child(self, trace: str, trusts_parent: bool = True) -> bool:
        """Whether what is done in this trace is sampled."""
        if not trusts_parent:
            return self.of_new()
        if not self._is_parent_based:
            return int(trace[19:35], 16) < self._bound  # as OpenTelemetry's TraceIdRatioBased
        return is_sampled(trace)

    def of_batch(self, traces: Sequence[str]) -> bool:
        """Whether the handling of jobs of these traces is sampled."""
        return any(map(self.of_child, traces)) if traces else self.of_new()

    def new_id(self) -> int:
        """The id of a new trace that is sampled, wherever that is decided by the id."""
        return getrandbits(64) << 64 | randrange(1, max(self._bound, 2))


def _share(written: str) -> float | None:
    with suppress(ValueError):
        if 0 <= (share := float(written)) <= 1:
            return share
    logger.warning("OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1: all traces are sampled")
    return None
