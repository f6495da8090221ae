"""Plots, where matplotlib is installed (requirements-bench.txt)."""

from collections.abc import Mapping, Sequence

Series = Mapping[str, Sequence[tuple[float, float]]]


def require() -> None:
    """Raise ImportError before the minutes of measuring, not after."""
    import matplotlib  # noqa: F401, ICN001, PLC0415  nobody needs it for the tables


def panels(path: str, panels: Mapping[tuple[str, str], Series], is_log: bool = True) -> None:
    """Write a PNG: a panel for each (title, label of x), a line for each of its series, milliseconds up."""
    import matplotlib as mpl  # noqa: PLC0415  as above

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  after the choice of what draws

    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4.5), squeeze=False)
    for axis, ((title, label), series) in zip(axes[0], panels.items(), strict=True):
        for name, points in series.items():
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axis.set(title=title, xlabel=label, ylabel="ms", xscale="log" if is_log else "linear")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
