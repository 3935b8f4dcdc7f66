import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.expiry import demanded_headers, signed_headers, validity

NOW = 1_700_000_000_000
MOMENTS = st.integers(1_000_000_000, 7_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
LIFETIMES = st.integers(1, 604_800)


PATHS = st.sampled_from(["", "/", "/b/k%2Fä", "/Expires=1", ":8443/a;b"])
NONSENSE = (
    st.text(max_size=12)
    | st.sampled_from(["", "-1", "+60", "1e3", "60.0", " 60", "٦٠", "\uff16\uff10", "9" * 16, "²", "0x10"])
    | st.sampled_from(
        [
            "20240101T000000",
            "20240231T000000Z",
            "\uff12\uff10\uff12\uff140101T000000Z",
            "2024-01-01",
            "99999999T000000Z",
        ]
    )
    | st.sampled_from(["2024-02-30", "2024-01-01T25:00Z", "2024-01-01T00:00:00+24:00"])
)


def basic(moment: datetime) -> str:
    return moment.strftime("%Y%m%dT%H%M%SZ")


@st.composite
def azure_time(draw: st.DrawFn, moment: datetime) -> tuple[str, datetime]:
    """A moment as Azure may write it, and the moment that this tells."""
    offset = draw(st.integers(-23 * 60 - 59, 23 * 60 + 59))
    local = moment + timedelta(minutes=offset)
    zone = draw(st.sampled_from(["Z", "", f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"]))
    shown = local if zone not in ("", "Z") else moment
    match draw(st.sampled_from(["day", "minute", "second", "fraction"])):
        case "day":
            return f"{moment:%Y-%m-%d}", moment.replace(hour=0, minute=0, second=0)
        case "minute":
            return f"{shown:%Y-%m-%dT%H:%M}{zone}", moment.replace(second=0)
        case "second":
            return f"{shown:%Y-%m-%dT%H:%M:%S}{zone}", moment
        case _:
            return f"{shown:%Y-%m-%dT%H:%M:%S}.{draw(st.integers(0, 9_999_999))}{zone}", moment


@st.composite
def presigned(draw: st.DrawFn) -> tuple[list[tuple[str, str]], datetime]:
    """The parameters of a URL of one of the schemes, and when it expires."""
    moment = draw(MOMENTS)
    match draw(st.sampled_from(["aws4", "google4", "aws2", "google2", "azure", "delegated"])):
        case "aws4" | "google4" as scheme:
            vendor = "X-Amz" if scheme == "aws4" else "X-Goog"
            seconds = draw(LIFETIMES)
            date, expires = (f"{vendor}-Date", basic(moment)), (f"{vendor}-Expires", str(seconds))
            return [date, expires, (f"{vendor}-Signature", "5")], moment + timedelta(seconds=seconds)
        case "aws2" | "google2" as scheme:
            who = "AWSAccessKeyId" if scheme == "aws2" else "GoogleAccessId"
            return [(who, "A"), ("Expires", str(round(moment.timestamp()))), ("Signature", "a+b/c=")], moment
        case "azure":
            text, told = draw(azure_time(moment))
            return [("sv", "2024-11-04"), ("se", text), ("sig", "a+b/c=")], told
        case _:
            text, told = draw(azure_time(moment))
            key_text, key_told = draw(azure_time(draw(MOMENTS)))
            return [("sv", "2024-11-04"), ("ske", key_text), ("se", text), ("sig", "a")], min(told, key_told)


@st.composite
def spelt(draw: st.DrawFn, parameters: list[tuple[str, str]]) -> str:
    """A query with these parameters in any order, their names in any case, encoded sparsely or wholly."""
    safe = draw(st.sampled_from(["", ":/+", ":"]))
    cases: list[Callable[[str], str]] = [str.title, str.lower, str.upper, str.swapcase]
    case = draw(st.sampled_from(cases))
    return "&".join(f"{case(name)}={quote(value, safe=safe)}" for name, value in draw(st.permutations(parameters)))


@given(data=st.data(), known=presigned(), path=PATHS, end=st.sampled_from(["", "#f", "#?Expires=1&se=2020-01-01"]))
def test_a_url_of_each_scheme_tells_its_expiry(
    data: st.DataObject, known: tuple[list[tuple[str, str]], datetime], path: str, end: str
) -> None:
    """Made for a known moment and read again, a URL of any of the schemes says that moment, however it is spelt."""
    parameters, expiry = known
    url = f"https://s.example{path}?{data.draw(spelt([*parameters, ('partNumber', '1'), ('x', '')]))}{end}"
    expires_at, lifetime = validity(url, NOW, 60.0)
    assert expires_at == round(expiry.timestamp() * 1000)
    if "-Expires" in url:
        assert lifetime == next(float(value) for name, value in parameters if name.endswith("-Expires"))
    elif "x-amz-expires" not in url.lower() and "x-goog-expires" not in url.lower():
        assert lifetime == max(0.0, (expires_at - NOW) / 1000)


@given(data=st.data(), known=presigned(), noise=st.lists(NONSENSE, max_size=4), other=presigned())
def test_a_repeated_parameter_lets_no_url_live_longer(
    data: st.DataObject,
    known: tuple[list[tuple[str, str]], datetime],
    noise: list[str],
    other: tuple[list[tuple[str, str]], datetime],
) -> None:
    """Whichever of two values the store believes: it is not later than the one that counts here."""
    parameters, expiry = known
    names = {name for name, _ in parameters}
    again = [(name, value) for name, value in other[0] if name in names]
    nonsense = [(data.draw(st.sampled_from(sorted(names - {"sig"}))), text) for text in noise]
    url = f"https://s.example/k?{data.draw(spelt([*parameters, *again, *nonsense]))}"
    told, _ = validity(url, NOW, 60.0)
    assert told <= round(expiry.timestamp() * 1000)
    if again == other[0]:
        assert told <= round(other[1].timestamp() * 1000)


@given(
    data=st.data(),
    known=presigned(),
    now=st.integers(0, 4 * NOW),
    asked=st.floats(1, 1e6),
    noise=st.lists(st.tuples(st.text(max_size=8) | st.sampled_from(["se", "ske", "Expires"]), NONSENSE), max_size=3),
)
def test_what_is_missing_or_nonsense_is_as_if_nothing_was_said(
    data: st.DataObject,
    known: tuple[list[tuple[str, str]], datetime],
    now: int,
    asked: float,
    noise: list[tuple[str, str]],
) -> None:
    """A value of no scheme is never taken for a time, and nothing is raised, whatever stands there."""
    timed = ("x-amz-date", "x-amz-expires", "x-goog-date", "x-goog-expires", "expires", "se", "ske")
    kept = [
        (name, data.draw(NONSENSE.filter(is_no_time)) if name.lower() in timed else value) for name, value in known[0]
    ]
    strange = [(name, text) for name, text in noise if is_no_time(text)]
    url = f"https://s.example/k?{data.draw(spelt([*kept, *strange]))}"
    assert validity(url, now, asked) == (now + round(asked * 1000), asked)


def is_no_time(text: str) -> bool:
    """Whether no scheme would take a text for a time: what the sampled nonsense is, and nearly all other texts."""
    return not re.fullmatch(r"[0-9]{1,15}|[0-9]{8}T[0-9]{6}Z|[0-9]{4}-.*", text, re.ASCII) or text in (
        *("20240231T000000Z", "99999999T000000Z", "2024-02-30", "2024-01-01T25:00Z"),
        "2024-01-01T00:00:00+24:00",
    )


@given(st.text() | st.text(max_size=20).map(lambda text: f"https://[::1/k?Expires={text}"), st.integers(0, 2**53))
def test_no_text_is_too_strange(text: str, now: int) -> None:
    """What comes from outside raises nothing, and no time is beyond what databases hold."""
    expires_at, lifetime = validity(text, now, 60.0)
    assert -(2**53) < expires_at <= max(now + 60_000, 253_402_300_799_000)
    assert lifetime >= 0


def test_an_azure_url_without_se_is_trusted_as_asked() -> None:
    """`se` may be absent, where a stored access policy holds the expiry."""
    assert validity("https://s/k?sv=2024&si=policy&sig=x", NOW, 90.0) == (NOW + 90_000, 90.0)


def test_an_absurdly_late_expiry_is_capped() -> None:
    """A number beyond the year 9999 does not overflow."""
    assert validity("https://s/k?Expires=999999999999999", NOW, 1.0)[0] == 253_402_300_799_000
    assert validity("https://s/k?X-Amz-Date=99991231T235959Z&X-Amz-Expires=999999999", NOW, 1.0)[0] < 2**53


def test_signed_headers_come_in_lower_case() -> None:
    """The names in SignedHeaders are read percent-decoded and without case."""
    assert signed_headers("https://s/k?X-Amz-SignedHeaders=Content-Type%3Bhost") == ("content-type", "host")
    assert signed_headers("https://s/k") == ()


@pytest.mark.parametrize(
    ("query", "headers", "unknown"),
    [
        ("X-Amz-SignedHeaders=host", {}, ()),
        ("X-Amz-SignedHeaders=content-length%3Bhost", {}, ()),
        ("X-Amz-SignedHeaders=content-type%3Bhost", {"Content-Type": "text/csv"}, ()),
        ("X-Amz-SignedHeaders=host%3Bx-amz-acl", {}, ("x-amz-acl",)),
        ("X-Amz-SignedHeaders=host%3Bx-amz-content-sha256", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, ()),
        ("sv=2024-01-01&se=2030-01-01&sig=x", {"x-ms-blob-type": "BlockBlob"}, ()),
    ],
)
def test_headers_are_sent_exactly_as_the_signature_demands(
    query: str, headers: dict[str, str], unknown: tuple[str, ...]
) -> None:
    """Only what was signed is sent, and a signed header whose value cannot be known is named."""
    assert demanded_headers(f"https://s/k?{query}", "text/csv") == (headers, unknown)
