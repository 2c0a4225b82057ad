"""The status page: one Status as HTML that loads nothing, follows the reader's colours and works without scripts."""

from collections.abc import Iterable
from html import escape

from exporter.observer.status import Row, Status

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent) }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
dl { display: grid; grid-template-columns: max-content auto; gap: .2rem 1.5rem } dt { opacity: .7 } dd { margin: 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { font-weight: 600 }
"""
_LINKS = {
    "/metrics": "metrics", "/api/status": "this page as JSON",
    "/-/healthy": "healthy", "/-/ready": "ready", "/-/drained": "drained",
}  # fmt: skip
_HEAD = ("model", "operation", "TTFT p50", "p99", "TPOT p50", "p99", "tokens/s", "live", "requests by outcome")


def page(status: Status) -> str:
    """The whole page."""
    links = "\n".join(f'<li><a href="{path}">{text}</a></li>' for path, text in _LINKS.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>inference-exporter</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>inference-exporter {escape(status.version)}</h1></header>
<main>
<section aria-labelledby="about"><h2 id="about">Engine and processes</h2>
<dl>
{_facts(status)}
</dl></section>
<section aria-labelledby="models"><h2 id="models">Models</h2>
{_table(status.rows)}
<p>Quantiles are of all requests so far.</p></section>
</main>
<footer><nav aria-label="Endpoints"><ul>
{links}
</ul></nav></footer>
</body>
</html>
"""


def _facts(status: Status) -> str:
    found = {
        "Engine": f"{status.engine} at {status.upstream}",
        "Engine reachable": _yes(status.engine_up),
        "Ready": _yes(status.ready),
        "Draining": _yes(status.draining),
        "Relays": ", ".join(f"{relay} (process {pid})" for relay, pid in status.relays.items()) or "none",
        "Restarts": _counts(status.restarts),
    }
    return "\n".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in found.items())


def _table(rows: Iterable[Row]) -> str:
    body = "\n".join(_row(row) for row in rows)
    if not body:
        return "<p>No request yet.</p>"
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEAD)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _row(row: Row) -> str:
    name = " ".join((row.model, *(label for label in row.labels if label)))
    cells = (
        row.operation,
        _seconds(row.ttft.p50),
        _seconds(row.ttft.p99),
        _seconds(row.tpot.p50),
        _seconds(row.tpot.p99),
        f"{row.tokens_per_second:.1f}",
        _counts(row.active),
        _counts(row.requests),
    )
    columns = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{columns}</tr>'


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _yes(value: bool | None) -> str:  # noqa: FBT001 - it is the value shown
    return "unknown" if value is None else "yes" if value else "no"
