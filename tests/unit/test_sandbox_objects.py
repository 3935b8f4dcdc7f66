"""Objects as files: names, places, and drafts that become objects whole or not at all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sandbox import contents, md5
from tablefeed.sandbox.objects import NAME_MAX, DigestError, ObjectFiles, file_name

parts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
nasty = st.lists(st.sampled_from(["..", ".", "", "/", "%2F", "%", "a", "\x00", "ä" * 130, ".csv"]), max_size=5).map(
    "".join
)


@pytest.fixture
def files(tmp_path: Path) -> ObjectFiles:
    """An empty store."""
    store = ObjectFiles(tmp_path)
    store.prepare()
    return store


def test_common_names_stay_as_they_are() -> None:
    """A name that people give to exports is the name of the file."""
    for name in ("orders.csv", "Aufträge & mehr (1).xlsx", "采购订单.csv", "it's #1 +.csv"):
        assert file_name(name) == name


def test_names_that_mean_something_else_are_escaped() -> None:
    """What would be a directory, or would spoil a terminal, is written as in a URL."""
    assert [file_name(name) for name in (".", "..", "", "a/b", "a\nb\x7f", "50%")] == [
        "%2E",
        "%2E%2E",
        "%",
        "a%2Fb",
        "a%0Ab%7F",
        "50%25",
    ]


@given(parts | nasty, parts | nasty)
def test_file_names_are_legal_and_distinct(one: str, other: str) -> None:
    """Every part of a key has a file name that Linux takes, and two parts never have the same."""
    name = file_name(one)
    assert 1 <= len(name.encode()) <= NAME_MAX
    assert name not in (".", "..")
    assert not set("/\x00") & set(name)
    assert (one == other) == (name == file_name(other))


def test_long_names_are_cut_between_characters() -> None:
    """A name of the greatest length stays; a longer one is cut at a whole character and keeps its suffix."""
    longest = "ä" * 125 + "x.csv"
    assert len(longest.encode()) == NAME_MAX
    assert file_name(longest) == longest
    cut = file_name("2026-" + longest)
    assert cut.startswith("2026-ää")
    assert cut.endswith(".csv")
    assert "\ufffd" not in cut
    assert NAME_MAX - 4 < len(cut.encode()) <= NAME_MAX
    assert cut != file_name("2027-" + longest)
    assert len(file_name("a." + "b" * 300).encode()) <= NAME_MAX


@given(parts | nasty)
def test_no_key_leads_elsewhere(key: str) -> None:
    """Every key lies exactly two levels below the directory of objects."""
    files = ObjectFiles(Path("/data"))
    place = files.location(key)
    assert place.parent.parent == Path("/data/objects")
    assert ".." not in place.parts


def test_keys_below_one_another(files: ObjectFiles) -> None:
    """A key may go on where another one ends, and a key may have no slash."""
    for key in ("a", "a/b", "a/b/c", "a/b/c/d"):
        files.draft(key).finish(key.encode(), None)
    assert sorted(contents(files.objects).values()) == [b"a", b"a/b", b"a/b/c", b"a/b/c/d"]


def test_object_appears_when_it_is_complete(files: ObjectFiles, tmp_path: Path) -> None:
    """Nothing is among the objects until the last byte; then the whole is, with its size and MD5."""
    draft = files.draft("table-456/a.csv")
    draft.write(b"one,")
    assert contents(files.objects) == {}
    stored = draft.finish(b"two", md5(b"one,two"))
    assert contents(tmp_path) == {"objects/table-456/a.csv": b"one,two"}
    assert stored.path == files.objects / "table-456/a.csv"
    assert (stored.key, stored.size, stored.md5) == ("table-456/a.csv", 7, md5(b"one,two"))


def test_object_is_on_the_disk_before_it_appears(files: ObjectFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are synced before the object takes its name, so that no power cut leaves a hollow one."""
    synced = []
    monkeypatch.setattr("os.fsync", lambda _fd: synced.append(contents(files.objects)))
    files.draft("t/a.csv").finish(b"x", None)
    assert synced == [{}]


def test_wrong_digest_keeps_the_former_object(files: ObjectFiles, tmp_path: Path) -> None:
    """A PUT whose digest is wrong leaves nothing, not even in the place of an older object."""
    files.draft("t/a.csv").finish(b"old", None)
    draft = files.draft("t/a.csv")
    with pytest.raises(DigestError):
        draft.finish(b"new", md5(b"other"))
    draft.discard()
    assert contents(tmp_path) == {"objects/t/a.csv": b"old"}


def test_same_key_is_overwritten(files: ObjectFiles, tmp_path: Path) -> None:
    """A second PUT to a key replaces the object."""
    for body in (b"first", b"second"):
        files.draft("t/a.csv").finish(body, None)
    assert contents(tmp_path) == {"objects/t/a.csv": b"second"}


def test_discard(files: ObjectFiles, tmp_path: Path) -> None:
    """A discarded draft leaves no file and takes nothing more; a finished one is not undone by it."""
    empty, half, done = (files.draft(f"t/{name}") for name in ("empty", "half", "done"))
    half.write(b"x")
    done.finish(b"y", None)
    for draft in (empty, half, done):
        draft.discard()
        with pytest.raises(ValueError, match="closed"):
            draft.write(b"z")
    assert contents(tmp_path) == {"objects/t/done": b"y"}
