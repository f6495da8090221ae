"""The status page as HTML. All its links are relative, so that it works below any path."""

from collections.abc import Iterable, Sequence
from html import escape

from common.gateway.status.report import GOOD_STATES, ProcessReport, StatusReport, StoreReport, TubeReport
from common.gateway.status.sparkline import sparkline

NOTHING = "\N{EN DASH}"
# Without the script, the browser loads the page anew.
RELOAD_SECONDS = 5

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Microblog: status</title>
<link rel="stylesheet" href="status.css">
<link rel="icon" href="data:,">
<script src="status.js" defer></script>
<noscript><meta http-equiv="refresh" content="{RELOAD_SECONDS}"></noscript>
</head>
<body>
<h1>Microblog: status</h1>
%s
</body>
</html>
"""

PROCESS_COLUMNS = ("State", "Version", "Age", "p50", "p99", "Errors a second")
TUBE_COLUMNS = ("Ready", "Delayed", "Reserved", "Buried", "Oldest ready")


def render(report: StatusReport) -> str:
    """The whole page."""
    requests = ("Service", "Instance", *PROCESS_COLUMNS, "Requests a second", "Last minute")
    jobs = ("Worker", "Instance", *PROCESS_COLUMNS, "Jobs a second", "Last minute")
    return PAGE % (
        f'<main aria-live="off">{_summary(report)}'
        + _table("Services", requests, [_process(one, requests) for one in report.services])
        + _table("Workers", jobs, [_process(one, jobs) for one in report.workers])
        + _table("Stores", ("Store", "Service", "State"), map(_store, report.stores))
        + _table("Tubes", ("Tube", *TUBE_COLUMNS), map(_tube, report.tubes))
        + "</main>"
    )


def _summary(report: StatusReport) -> str:
    processes = [*report.services, *report.workers]
    bad = sum(one.state not in GOOD_STATES for one in processes)
    verdict = f"{bad} of {len(processes)} need a look" if bad else f"All {len(processes)} are up"
    registry = "" if report.registry == "ok" else " The registry does not answer: this may be out of date."
    return (
        f'<p><strong class="{"bad" if bad else "good"}">{verdict}.</strong>{registry} Gateway '
        f"{escape(report.version)}, <time>{report.at:%H:%M:%S} UTC</time>.</p>"
    )


def _table(caption: str, columns: Sequence[str], rows: Iterable[str]) -> str:
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(rows) or f'<tr><td colspan="{len(columns)}">None is known.</td></tr>'
    return (
        f"<table><caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>\n"
    )


def _process(one: ProcessReport, columns: Sequence[str]) -> str:
    rate = _number(one.per_second)
    last_minute = sparkline(one.last_minute, f"the last minute, now {rate}, at most {_top(one.last_minute)}")
    cells = [
        escape(one.instance or NOTHING),
        _state(one.state, one.failure),
        escape(one.version or NOTHING),
        _duration(one.age_seconds),
        _milliseconds(one.p50_seconds),
        _milliseconds(one.p99_seconds),
        _marked(_number(one.errors_per_second), is_bad=bool(one.errors_per_second)),
        rate,
        last_minute if one.last_minute else NOTHING,
    ]
    return _row(one.name, cells, columns)


def _store(one: StoreReport) -> str:
    is_up = one.can_use_it == one.processes
    state = "up" if is_up else f"unavailable to {one.processes - one.can_use_it} of {one.processes}"
    return _row(one.name, [escape(one.service), _marked(state, not is_up)], ("Store", "Service", "State"))


def _tube(one: TubeReport) -> str:
    cells = [
        str(one.ready),
        str(one.delayed),
        str(one.reserved),
        _marked(str(one.buried), is_bad=one.buried > 0),
        _duration(one.oldest_ready_seconds),
    ]
    return _row(one.name, cells, ("Tube", *TUBE_COLUMNS))


def _row(name: str, cells: Iterable[str], columns: Sequence[str]) -> str:
    """`cells` are HTML; on a phone, each shows the name of its column."""
    named = zip(columns[1:], cells, strict=True)
    texts = "".join(f'<td data-column="{column}">{cell}</td>' for column, cell in named)
    return f'<tr><th scope="row">{escape(name)}</th>{texts}</tr>'


def _state(state: str, failure: str) -> str:
    text = f"{state}: {failure}" if failure else state
    return f'<span class="{"good" if state in GOOD_STATES else "bad"}">{escape(text)}</span>'


def _marked(text: str, is_bad: bool) -> str:
    return f'<strong class="bad">{escape(text)}</strong>' if is_bad else escape(text)


def _top(values: Sequence[float]) -> str:
    return _number(max(values, default=None))


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _milliseconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds * 1000:,.0f} ms"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
