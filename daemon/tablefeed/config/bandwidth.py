"""The limit on what all uploads send together, as it is written: `"20MiB/s"`, or a timetable by local time of day."""

import re
from itertools import pairwise
from typing import Annotated

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tablefeed.config.fields import NUMBER, UNIT, Form
from tablefeed.throttle import Rate, Schedule, Timetable, clock_time
from tablefeed.units import format_rate, parse_rate

TIMETABLE = '[["08:00", "5MiB/s"], ["19:00", ""]]'
"""What a timetable looks like."""
_TIME_OF_DAY = "([01][0-9]|2[0-3]):([0-5][0-9])"


def _bandwidth(value: object) -> Schedule:
    if isinstance(value, str):
        return parse_rate(value) if value else None
    if isinstance(value, list):
        return _timetable(value)
    raise ValueError(f'must be a rate in quotes, as in "20MiB/s", or a timetable, as in {TIMETABLE}')


def _timetable(value: list[object]) -> Timetable:
    if not value:
        raise ValueError(f'is an empty timetable: write {TIMETABLE}, or "" for no limit')
    entries = [_entry(number, entry) for number, entry in enumerate(value, start=1)]
    for number, (before, after) in enumerate(pairwise(entries), start=2):
        if after[0] <= before[0]:
            wrong = "at the same time as" if after[0] == before[0] else "before"
            raise ValueError(f"has an entry {number} that begins {wrong} entry {number - 1}: let each begin later")
    return Timetable(tuple(entries))


def _entry(number: int, entry: object) -> tuple[int, Rate]:
    match entry:
        case [str(time), str(rate)]:
            pass
        case _:
            raise ValueError(f'has an entry {number} that is no pair of texts such as ["08:00", "5MiB/s"]')
    found = re.fullmatch(_TIME_OF_DAY, time)
    if found is None:
        raise ValueError(f'has no time of day in entry {number}: write it like "08:00", from "00:00" to "23:59"')
    try:
        return int(found[1]) * 60 + int(found[2]), parse_rate(rate) if rate else None
    except ValueError as error:
        raise ValueError(f"has an entry {number} whose second part {error}") from None


def _exact_rate(rate: Rate) -> str:
    if rate is None:
        return ""
    text = format_rate(rate)
    return text if parse_rate(text) == rate else f"{rate}B/s"


def _written(value: Schedule) -> str | list[list[str]]:
    if not isinstance(value, Timetable):
        return _exact_rate(value)
    return [[clock_time(minute), _exact_rate(rate)] for minute, rate in value.entries]


class BandwidthForm(Form):
    """A rate as text, or a list of pairs."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What JSON Schema says of it."""
        rate = super().__get_pydantic_json_schema__(core, handler)
        time = {"type": "string", "pattern": f"^{_TIME_OF_DAY}$"}
        entry = {"type": "array", "prefixItems": [time, rate], "minItems": 2, "maxItems": 2}
        return {"anyOf": [rate, {"type": "array", "items": entry, "minItems": 1}]}


BANDWIDTH = BandwidthForm(_written, f"^({NUMBER}{UNIT}?/s)?$")
Bandwidth = Annotated[Schedule, BeforeValidator(_bandwidth), BANDWIDTH]
