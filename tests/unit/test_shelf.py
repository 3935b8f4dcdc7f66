import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tablefeed.archive.moves import Disk
from tablefeed.archive.shelf import NAME_MAX, Shelf, first_free, is_numbered, numbered

NAMES = (
    st.binary(min_size=1, max_size=NAME_MAX)
    .filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))
    .map(os.fsdecode)
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda name: len(name.encode()) <= NAME_MAX and name not in (".", "..")
)


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("orders.csv", 0, "orders.csv"),
        ("orders.csv", 1, "orders-1.csv"),
        ("orders.2023.csv", 12, "orders.2023-12.csv"),
        ("orders", 3, "orders-3"),
        (".orders", 3, ".orders-3"),
        ("o." + "x" * 40, 1, "o." + "x" * 40 + "-1"),
    ],
)
def test_the_number_stands_before_the_suffix(name: str, number: int, expected: str) -> None:
    """A numbered name keeps its suffix, so that programs still know its type."""
    assert numbered(name, number) == expected


@given(NAMES | TEXTS, st.integers(0, 10**6), st.integers(0, 60))
@example("ä" * 127, 1, 11)
@example("x" * 251 + ".csv", 0, 11)
def test_a_numbered_name_leaves_room(name: str, number: int, room: int) -> None:
    """Whatever the name, with its number and the room it fits in 255 bytes, and is known as one of its family."""
    result = numbered(name, number, room)
    assert 0 < len(os.fsencode(result)) <= NAME_MAX - room
    assert is_numbered(result, name, room)
    if number == 0 and len(os.fsencode(name)) <= NAME_MAX - room:
        assert result == name


@given(TEXTS, st.integers(0, 10**6), st.integers(0, 60))
def test_a_name_is_cut_between_characters(name: str, number: int, room: int) -> None:
    """A name that was UTF-8 is UTF-8 when it is shortened."""
    numbered(name, number, room).encode("utf-8")


@given(NAMES, st.integers(0, 60), st.lists(st.integers(0, 10**6), unique=True, min_size=2, max_size=2))
def test_numbers_tell_names_apart(name: str, room: int, pair: list[int]) -> None:
    """Two numbers never give one name."""
    assert numbered(name, pair[0], room) != numbered(name, pair[1], room)


@pytest.mark.parametrize("other", ["orders-1.txt", "orders-01.csv", "orders-x.csv", "other-1.csv", "orders-.csv", "a"])
def test_other_names_are_no_relatives(other: str) -> None:
    """Only what `numbered` gives counts as a numbered name."""
    assert not is_numbered(other, "orders.csv")


@given(st.integers(1, 10**6))
def test_the_first_free_number_is_found_fast(count: int) -> None:
    """It is the one after the last, found with few questions even after a million."""
    asked: list[int] = []

    def used(number: int) -> bool:
        asked.append(number)
        return number < count

    assert first_free(used) == count
    assert len(asked) <= 2 * count.bit_length() + 1


@given(st.sets(st.integers(1, 200)))
def test_a_free_number_is_found_among_gaps(taken: set[int]) -> None:
    """Where numbers are missing the result is free all the same, and follows one that is used."""
    found = first_free(lambda number: number in taken | {0})
    assert found not in taken
    assert found - 1 in taken | {0}


def test_a_name_is_used_with_any_of_its_companions(tmp_path: Path) -> None:
    """A file is not placed where the name of its companion is used, and the last place is found again."""
    shelf = Shelf(Disk(), str(tmp_path), "a.csv", (".done",))
    for name in ("a.csv.done", "a-1.csv", "a-1.csv.error.json", "new"):
        (tmp_path / name).touch()
    assert shelf.place(f"{tmp_path}/new") == f"{tmp_path}/a-2.csv"
    assert shelf.last(lambda _: True) == f"{tmp_path}/a-2.csv"
    assert shelf.last(lambda _: False) is None
    assert set(shelf.paths()) == {f"{tmp_path}/a-1.csv", f"{tmp_path}/a-2.csv"}
