"""The query of the presign call: what is demanded, and what is refused."""

import pytest

from tablefeed.sandbox.upload_query import DEMANDED, MAX_FILE_NAME, QueryError, UploadQuery, parse

GOOD = {"datasetid": "dataset-1", "filename": "a.csv", "filesize": "10", "filelastmodified": "1764000000000"}


def test_nothing_is_demanded_by_default() -> None:
    """The first version of the contract takes a call without any query."""
    assert parse({}) == UploadQuery(None, None, None)


def test_what_is_said_is_used() -> None:
    """A full query is taken by both versions, and other parameters do not matter."""
    for demanded in ((), DEMANDED):
        query = parse(GOOD | {"validforseconds": "604800", "more": "x"}, demanded)
        assert query == UploadQuery("dataset-1", "a.csv", 604_800)


def test_missing_ones_are_all_named() -> None:
    """The strict version names every parameter that is missing, and does not demand the optional one."""
    parse(GOOD, DEMANDED)
    with pytest.raises(QueryError) as caught:
        parse({"filename": "a.csv"}, DEMANDED)
    assert str(caught.value) == "datasetid is missing; filesize is missing; filelastmodified is missing"


@pytest.mark.parametrize("number", ["0", "1764000000000", "1764000000000.5", "1.764e12"])
def test_last_modified_may_be_a_fraction(number: str) -> None:
    """The vendor's JavaScript sends milliseconds with a fraction."""
    parse(GOOD | {"filelastmodified": number}, DEMANDED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("datasetid", ""),
        ("filename", ""),
        ("filename", "ä" * (MAX_FILE_NAME // 2 + 1)),
        ("filesize", ""),
        ("filesize", "-1"),
        ("filesize", "1.5"),
        ("filesize", "9" * 5000),
        ("filelastmodified", "yesterday"),
        ("filelastmodified", "nan"),
        ("filelastmodified", "inf"),
        ("filelastmodified", "-1"),
        ("validforseconds", "0"),
        ("validforseconds", "604801"),
        ("validforseconds", "1h"),
        ("validforseconds", "\u00b2"),
        ("validforseconds", "9" * 5000),
    ],
)
def test_bad_values_are_named(name: str, value: str) -> None:
    """What is sent is checked in both versions; the refusal names the parameter and the rule."""
    for demanded in ((), DEMANDED):
        with pytest.raises(QueryError, match=f"^{name} must be "):
            parse(GOOD | {name: value}, demanded)
