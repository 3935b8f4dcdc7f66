"""Presigned URLs: our signer and checker against each other, against botocore, and against Amazon's example."""

import calendar
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_to_bytes, urlsplit

import boto3
import pytest
from botocore.config import Config
from hypothesis import assume, given
from hypothesis import strategies as st

from tablefeed.sandbox.s3error import S3Error
from tablefeed.sandbox.sigv4 import MAX_LIFETIME, MAX_SKEW, Credentials, Received, presign, verify

ORIGIN = "http://127.0.0.1:8800"
HOST = ("Host", "127.0.0.1:8800")
KEYS = Credentials("SANDBOXACCESSKEY", "made-up/secret+key", "eu-west-1")
NOW = 1_764_000_000.0

AWKWARD = (
    "orders.csv",
    "two  words & more #1.csv",
    "50%2Foff+tax=20%.csv",
    "Aufträge Köln ~ä.csv",
    "采购订单.xlsx",
    'it\'s "quoted" (a)[b]{c}*!$@:;,?.csv',
    "a//b/../c/./d.csv",
    "tab\tand\nline.csv",
)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def received(url: str, *headers: tuple[str, str], method: str = "PUT") -> Received:
    """The request that a client makes of `url`, with nothing re-quoted."""
    _scheme, _, rest = url.partition("://")
    host, slash, target = rest.partition("/")
    return Received(method, slash + target, [("Host", host), *headers])


def refusal(request: Received, now: float = NOW, keys: Credentials = KEYS) -> S3Error:
    """The error that `verify` raises."""
    with pytest.raises(S3Error) as caught:
        verify(keys, request, now)
    return caught.value


def grant(**changes: Any) -> str:
    """A plain good URL, but for `changes`."""
    arguments: dict[str, Any] = {"path": "/store/table-456/orders.csv", "now": NOW, "lifetime": 60} | changes
    return presign(KEYS, ORIGIN, **arguments)


def boto_url(key: str, lifetime: int, **config_and_params: Any) -> str:
    """The URL that boto3 presigns for PUT of `key`."""
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation=config_and_params.pop("checksums", "when_required"),
    )
    client = boto3.client(
        "s3",
        endpoint_url=ORIGIN,
        region_name=KEYS.region,
        aws_access_key_id=KEYS.access_key,
        aws_secret_access_key=KEYS.secret_key,
        config=config,
    )
    params = {"Bucket": "store", "Key": key, **config_and_params}
    url: str = client.generate_presigned_url("put_object", Params=params, ExpiresIn=lifetime)
    return url


def signed_at(url: str) -> int:
    """When `url` was signed, in Unix seconds."""
    stamp = parse_qs(urlsplit(url).query)["X-Amz-Date"][0]
    return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))


def test_amazons_own_example() -> None:
    """The example in Amazon's S3 API reference gets the signature that is printed there."""
    keys = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
    url = presign(
        keys,
        "https://examplebucket.s3.amazonaws.com",
        "/test.txt",
        method="GET",
        now=calendar.timegm((2013, 5, 24, 0, 0, 0)),
        lifetime=86_400,
    )
    assert url.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


@pytest.mark.parametrize("key", AWKWARD)
def test_same_url_as_botocore(key: str) -> None:
    """For the same key and time we make the very URL that botocore makes, and both are accepted."""
    theirs = boto_url(key, 60)
    at = signed_at(theirs)
    assert presign(KEYS, ORIGIN, f"/store/{key}", now=at, lifetime=60) == theirs
    assert verify(KEYS, received(theirs), at) == f"/store/{key}"


def test_signed_headers_as_botocore() -> None:
    """Headers that botocore signs are demanded with their values, whatever the case of names and runs of blanks."""
    theirs = boto_url("a.csv", 60, ContentType="text/csv", Metadata={"source": "sap   erp"})
    at = signed_at(theirs)
    sent = {"content-type": "text/csv", "x-amz-meta-source": "sap   erp"}
    assert presign(KEYS, ORIGIN, "/store/a.csv", now=at, lifetime=60, headers=sent) == theirs
    verify(KEYS, received(theirs, ("CONTENT-TYPE", " text/csv "), ("X-Amz-Meta-Source", "sap erp")), at)
    wrong = received(theirs, ("Content-Type", "text/plain"), ("X-Amz-Meta-Source", "sap erp"))
    assert refusal(wrong, at).code == "SignatureDoesNotMatch"


def test_botocore_with_its_checksums_on() -> None:
    """The header that botocore adds for a checksum is signed, and so must be sent."""
    theirs = boto_url("a.csv", 60, checksums="when_supported", ChecksumAlgorithm="CRC32")
    at = signed_at(theirs)
    verify(KEYS, received(theirs, ("x-amz-sdk-checksum-algorithm", "CRC32")), at)
    assert refusal(received(theirs), at).code == "SignatureDoesNotMatch"


@given(
    name=names,
    now=st.floats(0, 4e9),
    lifetime=st.integers(1, MAX_LIFETIME),
    used=st.floats(0, 1),
    header=st.none() | names.filter(lambda text: text.isprintable()),
)
def test_round_trip(name: str, now: float, lifetime: int, used: float, header: str | None) -> None:
    """Whatever the name, a URL is good from its making to its expiry, for the path that was signed."""
    headers = {} if header is None else {"x-amz-meta-note": header}
    url = presign(KEYS, ORIGIN, f"/store/{name}", now=now, lifetime=lifetime, headers=headers)
    assert url.isascii()
    later = int(now) + lifetime * used
    assert verify(KEYS, received(url, *headers.items()), later) == f"/store/{name}"


@given(name=names, data=st.data())
def test_one_changed_character_is_refused(name: str, data: st.DataObject) -> None:
    """A URL of which one character is another is refused, unless it decodes to the very same path and query."""
    target = received(grant(path=f"/store/{name}")).target
    position = data.draw(st.integers(0, len(target) - 1))
    character = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    changed = target[:position] + character + target[position + 1 :]
    assume(_decoded(changed) != _decoded(target))
    with pytest.raises(S3Error):
        verify(KEYS, Received("PUT", changed, [HOST]), NOW)


def _decoded(target: str) -> tuple[bytes, list[tuple[str, str]]]:
    path, _, query = target.partition("?")
    return unquote_to_bytes(path), parse_qsl(query, keep_blank_values=True, encoding="latin-1")


@pytest.mark.parametrize(("ours", "other"), [("~", "%7E"), ("%C3", "%c3"), ("table", "%74able"), ("%2F", "/")])
def test_other_spellings_are_the_same(ours: str, other: str) -> None:
    """S3 decodes before it checks: a client that quotes more, less or in lower case is still let in."""
    url = grant(path="/store/table-1/~ä.csv")
    assert ours in url
    assert verify(KEYS, received(url.replace(ours, other)), NOW) == "/store/table-1/~ä.csv"


def test_plus_is_no_blank() -> None:
    """A plus sign in a path is a plus sign: a client that writes blanks so asks for another object."""
    url = grant(path="/store/a b.csv")
    assert refusal(received(url.replace("a%20b", "a+b"))).code == "SignatureDoesNotMatch"


def test_method_is_signed() -> None:
    """A URL for PUT allows nothing else."""
    assert refusal(received(grant(), method="DELETE")).code == "SignatureDoesNotMatch"


def test_host_is_signed() -> None:
    """A URL for one host is refused by another, and when no host is said."""
    target = received(grant()).target
    for headers in ([("Host", "localhost:8800")], []):
        assert refusal(Received("PUT", target, headers)).code == "SignatureDoesNotMatch"


def test_host_must_be_among_the_signed() -> None:
    """A URL that was signed without its host is refused by name of that header."""
    url = grant().replace("SignedHeaders=host", "SignedHeaders=content-type")
    error = refusal(received(url, ("Content-Type", "text/csv")))
    assert (error.code, error.details["HeadersNotSigned"]) == ("AccessDenied", "host")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://Store.example:80", "store.example"),
        ("https://store.example:443", "store.example"),
        ("http://store.example:443", "store.example:443"),
        ("http://[::1]:8800", "[::1]:8800"),
    ],
)
def test_host_as_clients_send_it(origin: str, host: str) -> None:
    """What is signed is the host in lower case, with its port unless that is the scheme's own."""
    url = presign(KEYS, origin, "/store/a.csv", now=NOW, lifetime=60)
    target = url.removeprefix(origin)
    assert verify(KEYS, Received("PUT", target, [("Host", host)]), NOW) == "/store/a.csv"


def test_mismatch_tells_what_was_computed() -> None:
    """As at S3, the refusal holds the string to sign and the canonical request, but never the secret key."""
    error = refusal(received(grant(), method="POST"))
    assert error.status == HTTPStatus.FORBIDDEN
    assert error.details["CanonicalRequest"].startswith("POST\n/store/table-456/orders.csv\n")
    assert error.details["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert KEYS.secret_key not in error.xml("/", "id").decode()


def test_unsigned_amz_header_is_refused() -> None:
    """An `x-amz-*` header that was not signed is refused by name; others are free."""
    verify(KEYS, received(grant(), ("Content-Type", "text/csv"), ("Accept", "*/*")), NOW)
    error = refusal(received(grant(), ("X-Amz-Acl", "public-read")))
    assert (error.status, error.code) == (403, "AccessDenied")
    assert error.message == "There were headers present in the request which were not signed"
    assert error.details["HeadersNotSigned"] == "x-amz-acl"


def test_absent_signed_header_is_refused() -> None:
    """A signed header must be sent, even one that was signed with an empty value."""
    for value in ("yes", ""):
        url = grant(headers={"x-amz-meta-a": value})
        verify(KEYS, received(url, ("x-amz-meta-a", value)), NOW)
        assert refusal(received(url)).code == "SignatureDoesNotMatch"


def test_expiry() -> None:
    """A URL is good up to its last second, and then refused with the words that clients look for."""
    request = received(grant(lifetime=60))
    verify(KEYS, request, NOW + 60)
    error = refusal(request, NOW + 60.1)
    assert (error.status, error.code, error.message) == (403, "AccessDenied", "Request has expired")
    assert error.details["X-Amz-Expires"] == "60"


def test_clock_ahead() -> None:
    """A URL signed more than a quarter of an hour in the future tells of a wrong clock."""
    request = received(grant(lifetime=MAX_LIFETIME))
    verify(KEYS, request, NOW - MAX_SKEW)
    error = refusal(request, NOW - MAX_SKEW - 1)
    assert (error.status, error.code) == (403, "RequestTimeTooSkewed")


@pytest.mark.parametrize("lifetime", [0, -1, MAX_LIFETIME + 1, "3600.5", "1h", "", "\uff11\uff12"])
def test_bad_lifetime(lifetime: Any) -> None:
    """`X-Amz-Expires` is a whole number from 1 to a week, however well it is signed."""
    error = refusal(received(grant(lifetime=lifetime)))
    assert (error.status, error.code) == (400, "AuthorizationQueryParametersError")


def test_no_parameters_at_all() -> None:
    """Without any signature the store just denies access; with a part of one it names what is missing."""
    path, query = received(grant()).target.split("?")
    assert refusal(Received("PUT", path, [HOST])).code == "AccessDenied"
    for part in query.split("&"):
        rest = "&".join(other for other in query.split("&") if other != part)
        error = refusal(Received("PUT", f"{path}?{rest}", [HOST]))
        assert (error.status, error.code) == (400, "AuthorizationQueryParametersError")
        assert error.message.endswith(f"missing: {part.partition('=')[0]}.")


@pytest.mark.parametrize(
    ("found", "replacement", "code"),
    [
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", "AuthorizationQueryParametersError"),
        ("SANDBOXACCESSKEY", "SOMEBODYELSE", "InvalidAccessKeyId"),
        ("eu-west-1", "us-east-1", "AuthorizationQueryParametersError"),
        ("T160000Z", "T1600Z", "AuthorizationQueryParametersError"),
        ("T160000Z", "T996000Z", "AuthorizationQueryParametersError"),
    ],
)
def test_parameters_that_make_no_sense(found: str, replacement: str, code: str) -> None:
    """Each wrong parameter is refused with the code that names it."""
    url = grant()
    assert found in url
    assert refusal(received(url.replace(found, replacement))).code == code


def test_other_secret() -> None:
    """A URL signed with another secret key is refused."""
    keys = Credentials(KEYS.access_key, "another", KEYS.region)
    assert refusal(received(grant()), keys=keys).code == "SignatureDoesNotMatch"


def test_repeated_signed_header_list() -> None:
    """A header is not signed twice: a list that names `host` twice matches no signature."""
    url = grant().replace("SignedHeaders=host", "SignedHeaders=host%3Bhost")
    assert refusal(received(url)).code == "SignatureDoesNotMatch"


def test_path_that_is_not_utf8() -> None:
    """A key is UTF-8; a path that is not is an invalid URI even with a good signature."""
    path = "/store/\udcff.csv"
    url = presign(KEYS, ORIGIN, path, now=NOW, lifetime=60)
    error = refusal(received(url))
    assert (error.status, error.code) == (400, "InvalidURI")


def test_secrets_stay_out_of_repr() -> None:
    """Neither the secret key nor a signed target shows when a value is printed."""
    assert KEYS.secret_key not in repr(KEYS)
    assert "Signature" not in repr(received(grant()))


def test_error_body_is_xml() -> None:
    """The body of a refusal is S3's XML, with whatever is in it escaped."""
    body = S3Error(HTTPStatus.FORBIDDEN, "AccessDenied", "a < b & c", {"Extra": "<>"}).xml("/store/a&b", "ID")
    assert body == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>a &lt; b &amp; c'
        b"</Message><Extra>&lt;&gt;</Extra><Resource>/store/a&amp;b</Resource><RequestId>ID</RequestId></Error>"
    )
