"""Nothing that gives access survives in text, whatever stands around it."""

import json
import time
from collections.abc import Callable
from enum import IntEnum, StrEnum
from html import escape
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from tablefeed.redact import REDACTED, Redactor, plain_fields, redact

SIGNED_NAMES = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Goog-Signature",
    "X-Goog-Credential",
    "Signature",
    "sig",
    "AWSAccessKeyId",
    "GoogleAccessId",
]

surroundings = st.text(max_size=40)
tokens = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_~.%", min_size=12, max_size=60)
keys = st.text(min_size=8, max_size=40).filter(lambda key: key.strip() and key not in REDACTED)
casings = st.sampled_from([str, str.lower, str.upper])


@given(before=surroundings, key=keys, after=surroundings)
def test_a_known_secret_never_survives_verbatim(before: str, key: str, after: str) -> None:
    """A key is taken out of any text, even where nothing tells that it is a key."""
    assert key not in redact(before + key + after, [key])


@pytest.mark.parametrize(
    "spell",
    [
        lambda key: quote(key, safe=""),
        lambda key: quote(key),
        lambda key: quote_plus(key),
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: quote(key, safe="").lower() if key.islower() else quote(key, safe=""),
        lambda key: json.dumps(key)[1:-1],
        lambda key: json.dumps(json.dumps(key))[3:-3],
        lambda key: json.dumps(key, ensure_ascii=False)[1:-1],
        lambda key: repr(key)[1:-1],
        lambda key: repr(key.encode())[2:-1],
        lambda key: str(URL("http://h/").with_query({"k": key}).raw_query_string)[2:],
        escape,
    ],
    ids=[
        "percent",
        "path",
        "form",
        "twice",
        "lower",
        "json",
        "json-in-json",
        "json-utf8",
        "repr",
        "bytes",
        "yarl",
        "html",
    ],
)
@given(before=surroundings, key=keys, after=surroundings)
def test_a_known_secret_never_survives_escaped(spell: Callable[[str], str], before: str, key: str, after: str) -> None:
    """A key is recognized in the spellings that URLs, JSON, HTML and Python give it."""
    spelt = spell(key)
    if spelt not in REDACTED:
        assert spelt not in redact(f"{before}<{spelt}>{after}", [key])


@given(before=surroundings, name=st.sampled_from(SIGNED_NAMES), casing=casings, secret=tokens, after=surroundings)
@pytest.mark.parametrize(
    "form",
    [
        "{n}={s}&next=1",
        "https://store.example/b/k?partNumber=1&{n}={s}&x=2",
        "https%3A%2F%2Fstore.example%2Fk%3F{n}%3D{s}%26x%3D2",
        "https%253A%252F%252Fstore.example%252Fk%253F{n}%253D{s}",
        "{n}\\u003d{s}\\u0026x",
        "<MultiDictProxy('{n}': '{s}', 'se': '1')>",
        '{{"{n}": "{s}"}}',
        '"{{\\"{n}\\": \\"{s}\\"}}"',
        "[('{n}', '{s}')]",
        "<{n}>{s}</{n}>",
    ],
)
def test_what_a_signature_consists_of_never_survives(
    form: str, before: str, name: str, casing: Callable[[str], str], secret: str, after: str
) -> None:
    """The parameters of all four schemes are taken out wherever they stand, in any case, also percent-encoded."""
    assume(secret not in before + after)
    assert secret not in redact(f"{before} {form.format(n=casing(name), s=secret)} {after}")


@given(before=surroundings, scheme=st.sampled_from(["http", "https", "HTTPS"]), secret=tokens, after=surroundings)
def test_the_query_of_a_url_never_survives(before: str, scheme: str, secret: str, after: str) -> None:
    """A scheme of signing that nobody has heard of yet is safe too: no URL keeps its query."""
    assume(secret not in before + after)
    assert secret not in redact(f"{before}{scheme}://store.example/b/k?other={secret} {after}")


@given(
    before=surroundings,
    scheme=st.sampled_from(["https", "postgresql", "postgresql+psycopg"]),
    password=st.text(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!$&()*+,;=-._~%:/?#", min_size=8, max_size=30
    ),
)
def test_the_password_of_a_url_never_survives(before: str, scheme: str, password: str) -> None:
    """User and password are taken out of every URL, also where their signs should have been encoded and were not."""
    text = redact(f"{before} {scheme}://tablefeed:x{password}@db.example/ledger failed")
    assert f"x{password}" not in text
    assert text.endswith("@db.example/ledger failed")


@pytest.mark.parametrize("name", ["x-api-key", "X-API-Key", "api_key", "Authorization", "Proxy-Authorization"])
@pytest.mark.parametrize(
    "form",
    [
        "{n}: {s}",
        "{n}:{s}\r\nHost: h",
        "{n}={s}",
        "curl -H '{n}: {s}'",
        "'{n}': '{s}'",
        '"{n}" : "{s}"',
        "'{n}': ['{s}']",
        "'{n}' => '{s}'",
        "(b'{n}', b'{s}')",
        '{{"name": "{n}", "value": "{s}"}}',
        "{n}='{s}'",
    ],
)
@given(secret=tokens)
def test_the_key_in_a_header_never_survives(name: str, form: str, secret: str) -> None:
    """However a header is written down, its value is left out, known or not."""
    assume(secret not in name)
    assert secret not in redact(f"sent {form.format(n=name, s=secret)}")


def test_the_representation_of_real_headers_holds_no_key() -> None:
    """What aiohttp puts in its exceptions shows header names only."""
    text = redact(repr(CIMultiDict({"Host": "h", "x-api-key": "k\"3'y", "Accept": "a"})))
    assert "3" not in text
    assert "'Host': 'h'" in text
    assert "'Accept': 'a'" in text


def test_an_authorization_of_several_words_goes_to_the_end_of_its_line() -> None:
    """Scheme, credential and signature leave together, and the next line stays."""
    text = redact("Authorization: AWS4-HMAC-SHA256 Credential=AK/x, SignedHeaders=host, Signature=00\nHost: h")
    assert text == f"Authorization: {REDACTED}\nHost: h"


@pytest.mark.parametrize(
    "text",
    [
        "orders.csv was delivered to https://store.example:9000/bucket/orders.csv",
        "[api] api_key_file = /etc/tablefeed/api-key cannot be read",
        "https://h refused the presigned URL (SignatureDoesNotMatch); it was signed for the headers host",
        "http://h:8080/p/a@b.csv",
        "/srv/exports/signature: final.csv",
        "x < y, 100% of = and & and 'quotes'",
        "sqlite:////var/lib/tablefeed/ledger.db",
    ],
)
def test_innocent_text_is_left_alone(text: str) -> None:
    """What operators need to read is not blotted out."""
    assert redact(text, ["an-api-key"]) == text


def test_host_and_path_stay_readable() -> None:
    """Of a URL only the query and the password go, not the marks around it."""
    text = redact("('https://u:p@h:9000/b/k?a=1'), then (https://h/k?b) and https://h/k.")
    assert text == f"('https://{REDACTED}@h:9000/b/k?{REDACTED}'), then (https://h/k?{REDACTED}) and https://h/k."


@given(text=st.text(), key=keys)
def test_redacting_twice_changes_nothing_more(text: str, key: str) -> None:
    """A text that went through one redaction can go through another."""
    once = redact(f"{text} https://u:p@h/k?x {text} sig=abc", [])
    assert redact(once, []) == once


def test_a_blank_secret_is_ignored() -> None:
    """An empty key file must not turn every character into a secret."""
    assert redact("a  b c", ["", " ", "  "]) == "a  b c"


def test_the_longer_of_two_secrets_goes_whole() -> None:
    """A key that begins with another key leaves no tail behind."""
    assert redact("secret-long", ["secret", "secret-long"]) == REDACTED


class Colour(StrEnum):
    RED = "https://h/?x=1"


class Number(IntEnum):
    ONE = 1


class Speaks:
    def __str__(self) -> str:
        return "https://h/k?x=hidden"


def plainly(value: object) -> object:
    """What a log shows of a field with this value."""
    return plain_fields({"field": value}, Redactor(()).text)["field"]


def test_a_structure_is_walked_to_its_leaves() -> None:
    """Names, values, exceptions, paths and strange objects all come out plain and redacted."""
    value = {
        "https://h/?x=1": [1, 2.5, None, True, Number.ONE],
        "deep": ({"set": {"https://h/?x=1"}}, Path("/srv/a"), Speaks()),
        "error": OSError("https://h/?x=1"),
        "enum": Colour.RED,
        "infinite": float("inf"),
    }
    assert plainly(value) == {
        f"https://h/?{REDACTED}": [1, 2.5, None, True, 1],
        "deep": [{"set": [f"https://h/?{REDACTED}"]}, "/srv/a", f"https://h/k?{REDACTED}"],
        "error": f"OSError: https://h/?{REDACTED}",
        "enum": f"https://h/?{REDACTED}",
        "infinite": "inf",
    }


@pytest.mark.parametrize("name", [*SIGNED_NAMES, "x-api-key", b"x-api-key", "api_key", "Authorization", "password"])
def test_what_belongs_to_a_secret_name_is_left_out_unseen(name: str | bytes) -> None:
    """In a structure the name alone tells: the value need not look like anything."""
    assert "hunter2" not in json.dumps(plainly({name: "hunter2"}))
    assert "hunter2" not in json.dumps(plainly([(name, "hunter2")]))
    assert "hunter2" not in json.dumps(plainly({name: ["hunter2"]}))


def test_a_structure_that_contains_itself_ends() -> None:
    """A cycle is cut and does not overflow the stack."""
    cycle: list[object] = ["https://h/?x=hidden"]
    cycle.append(cycle)
    assert "hidden" not in json.dumps(plainly(cycle))


@pytest.mark.parametrize(
    "piece",
    [
        "\\",
        "http://",
        "://a:b/",
        "://'a",
        "@://:",
        'x-api-key: "',
        "'x-api-key': \\'",
        "x-api-key','value'",
        "authorization ",
        "token\\",
        "sig",
        "sig ",
        "sig%25",
        "<sig",
        "a-",
        "%25",
        "k\\",
        "'",
        "0123456789abcdef",
    ],
)
def test_the_time_is_linear(piece: str) -> None:
    """No text can stop the daemon: 20 times as much takes far less than 400 times as long."""
    redactor = Redactor(["0123456789abcdef0123456789abcdeX", 'k\\\\\\"z\\'])

    def seconds(size: int) -> float:
        text = (piece * size)[: size * 4] + " sig"
        start = time.process_time()
        redactor.text(text)
        return time.process_time() - start

    short = max(min(seconds(1_000) for _ in range(3)), 0.0005)
    assert seconds(20_000) < 200 * short
