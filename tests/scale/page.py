"""The page and its picture, made of the figures and the model's outcomes alone, so that text and numbers agree."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from bench.report import figure
from scale.cases import (
    API,
    CHANGES,
    CONNECTIONS,
    CPU,
    NODES,
    ROW,
    SEEN,
    SIZES,
    TABLE,
    WAL,
    Result,
    borders,
    carries,
    demands,
    lot_of,
    use,
)
from scale.checks import Held
from scale.figures import Figure, Figures
from scale.picture import Line, Panel, picture

_TEXT = Path(__file__).with_name("text.md")
_NEARLY = 0.5
"""From where on a limit is worth a thought."""
_NOTHING = "–"
_ACTIONS = {
    CONNECTIONS: "a higher `max_connections`, then leases in rows instead of what belongs to a session, and a pool",
    TABLE: "`files` in parts by month",
    SEEN: "heartbeats that look only at nodes that are late",
    API: "a higher limit of the API, a longer night, or more tenants",
    CPU: "more cores, then a ledger per region",
    WAL: "a faster disk for the log, then a ledger per region",
}
_ROW = """\
- **The row of a shared feed.** A commit that records deliveries also sets the feed's `delivered_at`, and holds that
  one row until it is on the disk: nodes that send files of one feed take turns. With a disk that takes {flush} ms
  the row is in use most of the time from {full} nodes on, and a share gives {most} files a second at best. To change:
  set it at most once a second.
"""


def drawing(figures: Figures, results: Sequence[Result]) -> str:
    """The picture: what plants use of each limit, and what a backlog gives."""
    asked = {nodes: demands(figures, nodes) for nodes in SIZES}
    plants = [Line(name, [(n, each[name]) for n, each in asked.items()]) for name in (CONNECTIONS, API, CPU, WAL)]
    idle, share, ledger = (_of(results, name) for name in ("idle", "share", "ledger"))
    plants.append(Line("PostgreSQL's CPU, idle nodes", [(n, use(figures, each)[CPU]) for n, each in idle.items()]))
    rates = [
        Line("of one feed", [(n, each.outcome.files) for n, each in share.items()]),
        Line("of a feed each, API without limit", [(n, each.outcome.files) for n, each in ledger.items()]),
    ]
    return picture(
        "What one PostgreSQL carries",
        [
            Panel("Plants in the night: the part of each limit that they ask for", plants, -6, 3, _power, full=1.0),
            Panel("A backlog: files a second", rates, 2, 5, lambda value: f"{value:,.0f}"),
        ],
    )


def page(
    figures: Figures,
    known: Mapping[str, Figure],
    results: Sequence[Result],
    updates: Sequence[Mapping[str, float]],
    checks: Sequence[Held],
    note: str,
) -> str:
    """The whole of `docs/scale.md`; `note`: what has to be known of the checks."""
    share, ledger = (_of(results, name) for name in ("share", "ledger"))
    values = _numbers(figures) | {
        "known": str(len(known)),
        "measured": str(sum(each.measured for each in known.values())),
        "assumed": str(sum(not each.measured for each in known.values())),
        "growth": _growth(figures),
        "row": _row(figures, share),
        "nights": _nights(figures, results),
        "backlog": _backlog(figures, share, ledger),
        "slowest": _time(max((each.outcome.slowest_beat for each in (*share.values(), *ledger.values())), default=0)),
        "updates": _updates(updates),
        "checks": _checks(checks),
        "note": note,
        "figures": _figures(known),
    }
    return _filled(_TEXT.read_text().format_map(values))


def _numbers(figures: Figures) -> dict[str, str]:
    """What the text names."""
    alone, together = carries(figures, 1), carries(figures, lot_of(figures))
    plant = figures.night_files / figures.night_hours / 3600
    full = sorted((nodes, name) for name, nodes in borders(figures).items())
    beats = 1_000 * figures.heartbeats_per_second
    rows = 1_000 * figures.night_files
    kept = rows * figures.history_days
    numbers: dict[str, float] = {
        "alone": figures.transactions_per_file_alone,
        "busy": figures.transactions_per_file_busy,
        "wal_kb": figures.wal_bytes_per_file / 1e3,
        "row_bytes": figures.ledger_bytes_per_file,
        "idle": figures.idle_transactions_per_second,
        "connections": figures.connections_per_node,
        "hearer": figures.transactions_per_hearer,
        "hundred": figures.transactions_per_file_alone + 99 * figures.transactions_per_hearer,
        "mib": figures.connection_mib,
        "cores": figures.postgres_cores,
        "wal_rate": figures.postgres_wal_mb_per_second,
        "carries_alone": min(alone.values()),
        "carries_busy": min(together.values()),
        "plants": min(alone.values()) / plant,
        "night_files": figures.night_files,
        "night_hours": figures.night_hours,
        "limit": figures.postgres_connections,
        "limit_nodes": int(figures.postgres_connections / figures.connections_per_node),
        "default_nodes": int(100 / figures.connections_per_node),
        "beats": beats,
        "kept_beats": beats * 3600,
        "seen_rows": beats * 1_000,
        "rows_a_day": rows,
        "rows_kept": kept,
        "kept_gb": kept * figures.ledger_bytes_per_file / 1e9,
        "dead": rows * (CHANGES - 1),
        "vacuum_days": kept / 5 / (rows * (CHANGES - 1)),
        "api_rate": figures.api_calls_per_second,
        "changes": CHANGES,
        "in_flight": figures.files_in_flight,
        "lot": lot_of(figures),
        "lease": figures.lease_seconds,
    }
    return {name: figure(value) for name, value in numbers.items()} | {
        "first": min(together, key=lambda name: together[name]),
        "borders": ", ".join(f"{figure(nodes)} nodes ({name})" for nodes, name in full),
    }


def _growth(figures: Figures) -> str:
    rows = []
    known: set[str] = set()
    for nodes in (10, 100, 1_000, 10_000, 100_000):
        asked = demands(figures, nodes)
        full = [name for name in asked if asked[name] >= _NEARLY]
        told = [f"{name} ({_part(asked[name])})" for name in full]
        new = [_ACTIONS[name] for name in full if name not in known]
        known.update(full)
        then = "; ".join(new) or ("the same, further" if full else _NOTHING)
        rows.append((f"{nodes:,}", ", ".join(told) or "nothing", then))
    return _table(("nodes", "half full or more", "what to change then"), rows)


def _row(figures: Figures, share: Mapping[int, Result]) -> str:
    """What is said of the feed's row, where it is ever in the way."""
    full = next((n for n, each in share.items() if each.outcome.feed_row >= _NEARLY), None)
    if full is None:
        return ""
    most = max(each.outcome.files for each in share.values())
    return _ROW.format(flush=figure(figures.flush_ms), full=figure(full), most=figure(most))


def _nights(figures: Figures, results: Sequence[Result]) -> str:
    night = _of(results, "night")
    rows = []
    for nodes, each in _of(results, "idle").items():
        asked, quiet = demands(figures, nodes), each.outcome
        beat = _time(quiet.slowest_beat) if asked[SEEN] < 1 else "longer than the lease"
        cells = [f"{nodes:,}", figure(quiet.transactions), _part(quiet.cpu), beat, _part(asked[CONNECTIONS])]
        if nodes in night:
            seen, used = night[nodes].outcome, use(figures, night[nodes])
            cells += [figure(seen.files), figure(seen.transactions), *(_part(used[name]) for name in (CPU, WAL, API))]
            cells.append(f"{_time(seen.delay)} / {_time(seen.delay_95)}")
        else:
            offered = nodes * figures.night_files / figures.night_hours / 3600
            hours = figures.night_hours * max(asked[name] for name in (WAL, API))
            cells += [f"{figure(offered)} asked for", _NOTHING]
            cells += [f"{_part(asked[name])} asked for" for name in (CPU, WAL, API)]
            cells.append(f"the night takes {figure(hours)} h or more")
        rows.append(cells)
    head = (
        "nodes",
        "idle: tx/s",
        "CPU",
        "heartbeat",
        "connections",
        "night: files/s",
        "tx/s",
        "CPU",
        "WAL",
        "API",
        "delay",
    )
    return _table(head, rows)


def _backlog(figures: Figures, share: Mapping[int, Result], ledger: Mapping[int, Result]) -> str:
    rows = []
    for nodes, each in share.items():
        seen, used = each.outcome, use(figures, each)
        cells = [f"{nodes:,}", figure(seen.files), figure(seen.transactions / seen.files)]
        cells += [_part(used[name]) for name in (CPU, WAL, API, NODES, ROW)]
        fullest = max((name for name in used if name != CONNECTIONS), key=lambda name: used[name])
        other = figure(ledger[nodes].outcome.files) if nodes in ledger else _NOTHING
        rows.append([*cells, _time(seen.delay), fullest, other])
    head = ("nodes", "files/s", "tx/file", "CPU", "WAL", "API", "nodes' CPU", "feed's row", "delay", "fullest", "alone")
    return _table(head, rows)


def _updates(updates: Sequence[Mapping[str, float]]) -> str:
    if not updates:
        return ""
    told = [
        f"{figure(each['ms'])} ms with {figure(each['clients'])} ({figure(each['per_second'])} a second,"
        f" {figure(each['cpu_us'])} µs of CPU each)"
        for each in updates
    ]
    return f"A durable update of one small row took {', '.join(told)} connections on the machine that was measured."


def _checks(checks: Sequence[Held]) -> str:
    if not checks:
        return "It has not been held beside a real PostgreSQL yet: `make scale ARGS=--measure` does that."
    ratios = [each.model / each.check.files for each in checks]
    rows = []
    for each, ratio in zip(checks, ratios, strict=True):
        check = each.check
        cells = [str(check.clients), str(check.files_together), "one" if check.shared else "one each"]
        cells += [figure(check.files), figure(each.model), f"{ratio:.2f} ×", f"{check.others:.1f}"]
        rows.append(cells)
    head = ("clients", "files a commit", "feed", "PostgreSQL: files/s", "model: files/s", "ratio", "cores of others")
    return f"""\
The model beside a real PostgreSQL: pgbench makes the ledger's {CHANGES} commits as fast as it can, and the model is
asked for the same on the same {checks[0].check.cores} cores, less what pgbench and other programs took of them. It
says {min(ratios):.2f} to {max(ratios):.2f} times of what there was. It knows nothing of the time that passes between
the statements of a transaction, during which locks are held.

{_table(head, rows)}"""


def _figures(known: Mapping[str, Figure]) -> str:
    rows = [
        (f"`{name}`", each.what, f"{figure(each.value)} {each.unit}".strip(), _yes(each.measured), each.source)
        for name, each in known.items()
    ]
    return _table(("name", "what", "value", "measured", "where it comes from"), rows)


def _yes(measured: bool) -> str:
    return "yes" if measured else "**no**"


def _of(results: Sequence[Result], case: str) -> dict[int, Result]:
    return {each.nodes: each for each in results if each.case == case}


def _part(value: float) -> str:
    """A part of a limit in per cent."""
    per_cent = value * 100
    return f"{figure(per_cent)} %" if per_cent >= 0.01 else f"{per_cent:.1g} %"


def _power(value: float) -> str:
    """A mark of the axis."""
    return f"{value * 100:,.0f} %" if value >= 0.01 else f"{value * 100:g} %"


def _time(seconds: float) -> str:
    return f"{figure(seconds * 1e3)} ms" if seconds < 1 else f"{figure(seconds)} s"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _filled(text: str) -> str:
    """The same with paragraphs and points in lines of the usual length, however long their numbers are."""
    blocks = []
    for block in filter(str.strip, text.strip().split("\n\n")):
        if block.startswith("- "):
            points = block.removeprefix("- ").split("\n- ")
            blocks.append("\n".join(_lines(f"- {point}", indent="  ") for point in points))
        else:
            blocks.append(block if block.startswith(("|", "#", "!")) else _lines(block))
    return "\n\n".join(blocks) + "\n"


def _lines(text: str, indent: str = "") -> str:
    plain = " ".join(text.split())
    return fill(plain, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
