from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.expiry import demanded_headers, parameters, signed_headers, validity

NOW = 1_700_000_000_000
MOMENTS = st.integers(1_000_000_000, 7_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
LIFETIMES = st.integers(1, 604_800)


def spelt(name: str, upper: list[bool]) -> str:
    return "".join(c.upper() if up else c.lower() for c, up in zip(name, upper, strict=False))


CASES = st.lists(st.booleans(), min_size=20, max_size=20)


@given(MOMENTS, LIFETIMES, CASES, st.sampled_from(["X-Amz", "X-Goog"]))
def test_version_4_urls_expire_at_their_date_plus_their_seconds(
    moment: datetime, seconds: int, case: list[bool], vendor: str
) -> None:
    """A SigV4 or GCS V4 URL tells its expiry, however its parameter names are spelt."""
    date = moment.strftime("%Y%m%dT%H%M%SZ")
    url = f"https://s/k?{spelt(vendor + '-Date', case)}={date}&{spelt(vendor + '-Expires', case)}={seconds}"
    expires_at, lifetime = validity(url, NOW, 60.0)
    assert expires_at == round((moment + timedelta(seconds=seconds)).timestamp() * 1000)
    assert lifetime == seconds


@given(MOMENTS, CASES)
def test_version_2_urls_expire_at_their_unix_seconds(moment: datetime, case: list[bool]) -> None:
    """A SigV2 or GCS V2 URL tells its expiry in Unix seconds."""
    seconds = round(moment.timestamp())
    expires_at, lifetime = validity(f"https://s/k?{spelt('Expires', case)}={seconds}&Signature=x", NOW, 60.0)
    assert expires_at == seconds * 1000
    assert lifetime == max(0.0, seconds - NOW / 1000)


@given(MOMENTS, st.sampled_from(["%Y-%m-%d", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.0000000Z"]))
def test_azure_urls_expire_at_se_in_any_precision(moment: datetime, form: str) -> None:
    """An Azure SAS URL tells its expiry in `se`, as a day, a minute, a second or parts of one."""
    text = moment.strftime(form)
    expected = moment
    if form == "%Y-%m-%d":
        expected = moment.replace(hour=0, minute=0, second=0)
    elif form == "%Y-%m-%dT%H:%MZ":
        expected = moment.replace(second=0)
    expires_at, _ = validity(f"https://s/k?sv=2024&se={quote(text)}&sig=x", NOW, 60.0)
    assert expires_at == round(expected.timestamp() * 1000)


@given(st.text(max_size=40), st.sampled_from(["X-Amz-Date", "X-Amz-Expires", "Expires", "se", "X-Goog-Date", "other"]))
def test_what_a_url_does_not_tell_is_trusted_as_asked(value: str, name: str) -> None:
    """A URL of another scheme, or with nonsense in its parameters, counts as valid for the lifetime asked for."""
    if value.isascii() and value.isdigit():
        value = "-" + value
    assert validity(f"https://s/k?{name}={quote(value)}", NOW, 90.0) == (NOW + 90_000, 90.0)


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


@given(st.text(max_size=60))
def test_any_query_is_read_without_a_crash(query: str) -> None:
    """A URL comes from outside and may hold anything."""
    assert isinstance(parameters("https://s/k?" + quote(query)), dict)
