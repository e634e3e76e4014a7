"""A secret is found in every form in which it may appear, whole or cut."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from time import thread_time
from urllib.parse import quote, quote_plus, unquote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from iggyflux.documents import load_schema
from iggyflux.documents.line_masking import hidden_spans
from iggyflux.errors import DocumentError
from iggyflux.mapping import parse_mapping
from iggyflux.pipeline import parse_pipeline
from iggyflux.secrets import SECRET_KEYS, Scrubber, is_secret_key, login_spans, secret_spans, url_secrets

FEW = settings(max_examples=25)
SECRETS = st.text(
    st.sampled_from("abcXYZ0189") | st.sampled_from("/+=&%<>\"'\\ é€😀`:;?#\t"), min_size=8, max_size=40
).filter(lambda text: text == text.strip())
ESCAPES = (
    st.lists(
        st.sampled_from(["\\", "\\\\", "%00", "%41", "&amp;", "&#65;", "\\n", "\\x41", "\\u0041", "%", "&", "b", "Z9"]),
        min_size=4,
        max_size=9,
    )
    .map("".join)
    .filter(lambda text: len(text) >= 8)
)
"""Secrets whose own characters look like escapes."""

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "json": lambda text: json.dumps(text)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text))[1:-1],
    "json with slashes escaped": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json of Go": lambda text: (
        json.dumps(text, ensure_ascii=False)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c")
    ),
    "repr": lambda text: repr(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "repr of repr": lambda text: repr(repr(text))[2:-2],
    "json in json in json": lambda text: json.dumps(json.dumps(json.dumps(text)))[7:-7],
    "json in repr": lambda text: repr(json.dumps(text)),
    "percent in json": lambda text: json.dumps(quote(text)),
    "json in percent": lambda text: quote(json.dumps(text)),
    "html in json": lambda text: json.dumps(html.escape(text)),
    "percent": lambda text: quote(text, safe=""),
    "percent of a path": quote,
    "percent in small letters": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "html": html.escape,
    "hex": lambda text: text.encode().hex(),
    "hex in capitals": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 of more": lambda text: base64.b64encode(f"u:{text}@host".encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(f"Token {text}!".encode()).decode(),
    "base64 in an address": lambda text: quote(base64.b64encode(f"user:{text}".encode()).decode(), safe=""),
}


def pieces(text: str) -> set[str]:
    """Return what must not be shown: six characters in a row, unless they are backslashes, which tell nothing."""
    return {text[start : start + 6] for start in range(len(text) - 5)} - {"\\" * 6}


def core(form: str, secret: str) -> str:
    """Return the part of a form that depends on the secret alone: base64 mixes characters at the borders."""
    written = FORMS[form](secret)
    return written[12:-8] if form.startswith("base64 ") else written


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(secret=SECRETS | ESCAPES)
@example(secret="&amp;%%41%41")
@example(secret="%00&amp;\\")
@example(secret="%00&amp;\\\\")
def test_a_secret_is_found_in_every_form(form: str, secret: str) -> None:
    """Also one whose own characters look like escapes, such as `\\\\%00`."""
    shown = Scrubber([secret])(f"no: {FORMS[form](secret)}, ~~~~~~~")

    assert shown.startswith("no: ")
    assert [piece for piece in pieces(core(form, secret)) if piece in shown] == []


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(secret=SECRETS, data=st.data())
def test_a_secret_that_was_cut_is_hidden_before_the_cut(form: str, secret: str, data: st.DataObject) -> None:
    """Unless so few characters remain that they may be anything, as of `%41bc`, which is three characters decoded."""
    assume(html.unescape(unquote_plus(secret)) in (secret, secret.replace("+", " ")))
    assert_cut_is_hidden(form, secret, data.draw(st.integers(0, len(FORMS[form](secret)))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", ['000\t0"00', '000a""\'0', "'\t\t''0\"a"])
def test_a_backslash_before_the_quote_at_a_cut_is_hidden(form: str, secret: str) -> None:
    """The backslash of the secret and the quote around it look like one escape."""
    for length in range(len(FORMS[form](secret)) + 1):
        assert_cut_is_hidden(form, secret, length)


def assert_cut_is_hidden(form: str, secret: str, length: int) -> None:
    quotes = "'\"" if "repr" in form and {*"'\""} <= {*secret} else ""  # by these, repr decides what is escaped
    cut, few = FORMS[form](secret)[:length], len(FORMS[form](secret[:5] + quotes))
    hidden = pieces(secret) if len(cut) < few else pieces(secret) | pieces(core(form, secret))
    scrub = Scrubber([secret])

    for shown in (scrub(f"no: ~~{cut}", is_cut=True), scrub(f"no: ~~{cut}… and more"), scrub(f"no: '~~{cut}'...")):
        assert shown.startswith("no: ")
        assert [piece for piece in hidden if piece in shown] == []


@FEW
@given(text=st.text(max_size=200))
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert Scrubber(["~~~~~~~~~~~~~~~~", ""])(text) == text or "~~~~" in text


def keys_of(node: object) -> set[str]:
    """Return every key that a schema has."""
    if isinstance(node, list):
        return set().union(*map(keys_of, node))
    if not isinstance(node, dict):
        return set()
    return {*node.get("properties", {}), *(key for child in node.values() for key in keys_of(child))}


@pytest.mark.parametrize("kind", ["pipeline", "mapping"])
def test_of_the_keys_of_a_schema_only_those_of_secrets_are_hidden(kind: str) -> None:
    secret = {key for key in keys_of(load_schema(kind)) if is_secret_key(key)}

    assert secret == ({*SECRET_KEYS, "headers"} if kind == "pipeline" else {"headers"})


@pytest.mark.parametrize("name", ["api_key", "apikey", "tokn", "pasword", "X-Auth", "client_secret", "pwd", "db_pwd"])
def test_a_name_that_suggests_a_secret_is_hidden(name: str) -> None:
    assert is_secret_key(name)


PIPELINE = """\
iggyflux: 1
from: log:data
influxdb: {{url: "{url}", bucket: b, token: {token}{more}}}
run: [{{mapping: m.yaml}}]
"""


@pytest.mark.parametrize(
    "text",
    [
        PIPELINE.format(url="http://user:SECRET@h:x/", token="t", more=""),
        PIPELINE.format(url="http://h", token="SECRET", more=", flavor: SECRET"),
        PIPELINE.format(url="http://h", token="SECRET", more=", SECRET: 1"),
        PIPELINE.format(url="http://h", token="SECRET", more=", timeout: SECRET"),
        PIPELINE.format(url="http://h", token="[SECRET, SECRET]", more=""),
        PIPELINE.format(url="http://h", token="!SECRET x", more=""),
        PIPELINE.format(url="http://h", token="SECRET: x", more=""),
        PIPELINE.format(url="http://h", token="`SECRET", more=""),
        PIPELINE.format(url="http://h", token="'SECRET' SECRET", more=""),
        PIPELINE.format(url="http://h", token='"\\SECRET"', more=""),
        PIPELINE.format(url="http://h", token="{a: SECRET}", more=""),
    ],
)
def test_problems_of_a_pipeline_contain_no_part_of_a_secret(text: str) -> None:
    """Whatever its length: texts are cut at different places."""
    for length in range(8, 200, 7):
        secret = ("Qj7KwVx2Lb9TzRf4YmHs" * 10)[:length]
        with pytest.raises(DocumentError) as error:
            parse_pipeline(text.replace("SECRET", secret), environ={})

        shown = str(error.value) + repr([problem.as_dict() for problem in error.value.problems])
        assert [piece for piece in pieces(secret) if piece in shown] == []


@pytest.mark.parametrize(
    "text",
    [
        "iggyflux: 1\nfrom: log:data\ninfluxdb:\n  url: http://h x # del SECRET\nrun: [{mapping: m.yaml}]\n",
        "iggyflux: 1\nfrom: log:data\nto: stdout\nrun: [{mapping: m.yaml, name: [a]}] # SECRET\n",
        'iggyflux = 1\nfrom = "log:data"\nto = 5# SECRET\nrun = [{mapping = "m.yaml"}]\n',
        "iggyflux: 1\nfrom: log:data\nto: stdout\nrun: [{mapping: m.yaml}]\nto: stdout # SECRET\n",
        "iggyflux: 1\nfrom: log:data\nto: 'stdout # SECRET\n",
    ],
)
def test_problems_of_a_pipeline_quote_no_comment(text: str) -> None:
    secret = "Qj7KwVx2Lb9TzRf4YmHs"
    with pytest.raises(DocumentError) as error:
        parse_pipeline(text.replace("SECRET", secret), environ={}, format="toml" if " = " in text else "yaml")

    assert [piece for piece in pieces(secret) if piece in str(error.value)] == []


@pytest.mark.parametrize("login", ["http://SECRET@h/x", "lambda:SECRET@h", "see ftp://lambda:SECRET@h.example"])
@pytest.mark.parametrize(
    "line",
    [
        "timestamp: {expr: ts, format: 'LOGIN'}",
        "timestamp: {expr: ts, format: unix_s, yield: 'LOGIN'}",
        "timestamp: {expr: 'LOGIN', format: unix_s}",
        "timestamp: {expr: ts, format: x} # LOGIN",
        "timestamp: 'LOGIN'",
        "'LOGIN': {expr: ts}",
    ],
)
def test_problems_of_a_mapping_contain_no_login(line: str, login: str) -> None:
    secret = "Qj7KwVx2Lb9TzRf4YmHs"
    text = f"iggyflux: 1\nkind: writer\nfrom: {{stream: s, topic: t}}\npoints:\n  measurement: {{const: m}}\n  {line}\n"
    with pytest.raises(DocumentError) as error:
        parse_mapping(text.replace("LOGIN", login.replace("SECRET", secret)))

    shown = str(error.value) + repr([problem.as_dict() for problem in error.value.problems])
    assert [piece for piece in pieces(secret) if piece in shown] == []


def test_an_expression_of_a_mapping_is_quoted_whole() -> None:
    text = "iggyflux: 1\nkind: writer\nfrom: {stream: s, topic: t}\npoints: {measurement: 'del({a:b,c:@.x})'}\n"
    with pytest.raises(DocumentError) as error:
        parse_mapping(text)

    assert "del({a:b,c:@.x})" in str(error.value)


PUMPS = [
    "-",
    "[-",
    ":",
    "a:",
    "a@",
    ":@",
    "://",
    ":/ ",
    ": ",
    "a.b",
    "?a=",
    "#",
    "%4",
    "\\",
    "\\x4",
    "&#6",
    "'",
    '"',
    "{a: ",
    "[",
    "=a:",
    ",a:b",
    "token: ",
    "…",
]


def is_fast(call: Callable[[], object]) -> bool:
    """Return whether one of three calls takes less than a second: a collection of garbage may take as long."""
    for _ in range(3):
        started = thread_time()
        call()
        if thread_time() - started < 1.0:
            return True
    return False


@pytest.mark.parametrize("pump", PUMPS)
def test_looking_for_secrets_takes_linear_time(pump: str) -> None:
    """A value, or a line, may have 1 MB: each search over it, of 100,000 characters in a second."""
    for text in (pump * (100_000 // len(pump)), "http://" + pump * (100_000 // len(pump)), "http://[" + pump * 30_000):
        for search in (lambda text: list(url_secrets(text)), login_spans, secret_spans, hidden_spans):
            assert is_fast(lambda search=search, text=text: search(text))


@pytest.mark.parametrize("pump", [*PUMPS, "...", "'...", "%…", "\\\\…", "aaaa…", "a%b&…", "%41", "&amp;", "\\u0041"])
@pytest.mark.parametrize("secret", ["Qj7KwVx2Lb9TzRf4YmHs", "a" * 16, 'a%b&c\\d"é/' * 4])
def test_hiding_secrets_takes_linear_time(secret: str, pump: str) -> None:
    """An answer of a server may have any length, and an ellipsis anywhere."""
    scrub = Scrubber([secret])
    assert is_fast(lambda: scrub((pump * 10_000)[:10_000], is_cut=True))
