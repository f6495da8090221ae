"""A small plot of the last minute, as SVG."""

from collections.abc import Sequence

from common.gateway.status.history import MAX_SAMPLES

WIDTH = MAX_SAMPLES - 2  # between the points of a minute
HEIGHT = 10


def sparkline(values: Sequence[float], description: str) -> str:
    """A line that ends now, at the right; `description` is for readers who do not see it, and is HTML."""
    top = max(values, default=0) or 1
    start = WIDTH - len(values) + 1
    points = " ".join(
        f"{start + number},{HEIGHT - HEIGHT * value / top:.1f}" for number, value in enumerate(values)
    )
    return (
        f'<svg viewBox="0 -1 {WIDTH} {HEIGHT + 2}" preserveAspectRatio="none" role="img" '
        f'aria-label="{description}"><polyline points="{points}"/></svg>'
    )
