"""What the model is fed with: the part `figures` of `docs/scale.json`, each with its unit and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One number and what is known of it."""

    value: float
    unit: str
    what: str
    measured: bool
    source: str


@dataclass(frozen=True, slots=True)
class Figures:
    """All of them. Each field is one key of the file; durations are in the unit that the name ends with."""

    transactions_per_file_alone: float
    transactions_per_file_busy: float
    transactions_per_hearer: float
    wal_bytes_per_file: float
    ledger_bytes_per_file: float
    node_cpu_ms_per_file: float
    feed_row_share: float
    cpu_us_per_transaction: float
    cpu_us_per_row: float
    cpu_us_per_read: float
    cpu_us_per_node_seen: float
    flush_ms: float
    connection_mib: float
    connections_per_node: float
    heartbeats_per_second: float
    idle_transactions_per_second: float
    postgres_cores: float
    postgres_connections: float
    postgres_wal_mb_per_second: float
    postgres_table_gb: float
    api_calls_per_second: float
    api_ms: float
    upload_ms: float
    move_ms: float
    files_in_flight: float
    night_files: float
    night_hours: float
    history_days: float
    lease_seconds: float


def read_figures(told: Mapping[str, Any]) -> tuple[Figures, dict[str, Figure]]:
    """The numbers, and all that is known of each. Raises ValueError, which names what is missing, unknown or wrong."""
    wanted = [field.name for field in fields(Figures)]
    if missing := [name for name in wanted if name not in told]:
        raise ValueError(f"figures are missing: {', '.join(missing)}")
    if unknown := sorted(set(told) - set(wanted)):
        raise ValueError(f"no such figure: {', '.join(unknown)}; there are {', '.join(wanted)}")
    known = {name: _figure(name, told[name]) for name in wanted}
    return Figures(**{name: figure.value for name, figure in known.items()}), known


def _figure(name: str, told: Mapping[str, Any]) -> Figure:
    try:
        figure = Figure(**told)
    except TypeError:
        raise ValueError(f"{name}: a figure has value, unit, what, measured and source, and nothing else") from None
    if not isinstance(figure.value, int | float) or isinstance(figure.value, bool) or figure.value < 0:
        raise ValueError(f"{name}: value must be a number that is not negative, not {figure.value!r}")
    if not isinstance(figure.measured, bool) or not figure.source:
        raise ValueError(f"{name}: measured must be true or false, and source must say where the value comes from")
    return figure
