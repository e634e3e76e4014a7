"""Files of samples as people have them: compressed, in UTF-16, cut off; and documents in UTF-16."""

from __future__ import annotations

import base64
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux import Message, load_mapping
from iggyflux.authoring.sample_bytes import SampleError, expanded, plain_name, zstd
from iggyflux.authoring.samples import SampleFile
from iggyflux.cli.sample_files import find_samples, samples_beside
from iggyflux.documents import EditableText, parse_document
from tests.shell import iggyflux

MAPPING = """\
iggyflux: 1
kind: writer
from: {stream: werk, topic: waage}
points:
  measurement: {const: waage}
  tags: {ort: ort}
  fields: {kg: gewicht}
  timestamp: {expr: zeit, format: unix_s}
examples:
  - message: {ort: köln, gewicht: 1, zeit: 5}
    points: ['waage,ort=köln kg=1.0 5000000000']
"""
READER = """\
iggyflux: 1
kind: reader
from: {measurement: waage}
cursor: {start: beginning}
messages: {payload: '{kg: kg}'}
to: {stream: werk, topic: zurück}
"""
LINES = "".join(
    json.dumps({"ort": f"köln {number % 3}", "gewicht": number + 0.5, "zeit": 1700000000 + number}, ensure_ascii=False)
    + "\n"
    for number in range(150)
)
FORMS = {
    "gzip": (".gz", gzip.compress),
    "zstd": (".zst", zstd.compress if zstd else lambda data: pytest.skip("no zstd")),
    "two gzip members": (".gz", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
    "two zstd frames": (".zst", lambda data: zstd.compress(data[:5]) + zstd.compress(data[5:])),
    "upper case": (".GZ", gzip.compress),
    "gzip of UTF-16": (".gz", lambda data: gzip.compress(data.decode().encode("utf-16"))),
    "UTF-16 little endian": ("", lambda data: b"\xff\xfe" + data.decode().encode("utf-16-le")),
    "UTF-16 big endian": ("", lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be")),
    "UTF-16 with the line ends of Windows": ("", lambda data: data.replace(b"\n", b"\r\n").decode().encode("utf-16")),
    "mark of UTF-8": ("", lambda data: b"\xef\xbb\xbf" + data),
}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("waage.yaml").write_text(MAPPING, "utf-8")
    Path("retour.yaml").write_text(READER, "utf-8")
    Path("plain.ndjson").write_text(LINES, "utf-8")


COMMANDS = {
    "dry-run": ("dry-run", "waage.yaml", "FILE"),
    "validate": ("validate", "waage.yaml", "--samples", "FILE", "--format", "json"),
    "infer": ("infer", "FILE", "--topic", "werk/waage"),
    "eval": ("eval", "ort", "FILE"),
    "round trip": ("test", "--round-trip", "waage.yaml", "retour.yaml", "FILE", "--format", "json"),
    "log append": ("log", "append", "data", "werk/waage", "FILE"),
    "whole": ("dry-run", "waage.yaml", "FILE", "--whole", "--format", "json"),
}


CASES = [("dry-run", form) for form in FORMS] + [
    (command, form) for command in COMMANDS for form in ("zstd", "UTF-16 big endian", "mark of UTF-8")
]


@pytest.mark.parametrize(("command", "form"), CASES)
def test_every_command_that_reads_samples_reads_them_in_every_form(command: str, form: str) -> None:
    """With the same output, byte for byte, as for the plain file."""
    ending, convert = FORMS[form]
    name = f"other.ndjson{ending}"
    text = LINES if command != "whole" else LINES.split("\n")[0]
    Path("plain.ndjson").write_text(text, "utf-8")
    Path(name).write_bytes(convert(text.encode()))

    plain, other = (
        iggyflux(*[each.replace("FILE", file) for each in COMMANDS[command]]) for file in ("plain.ndjson", name)
    )

    assert plain.out or plain.err.startswith("appended")
    assert (other.code, other.out) == (plain.code, plain.out)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_rows_of_a_reader_are_csv_by_the_name_without_its_compression(ending: str) -> None:
    rows = b"time,kg\n1,2.5\n"
    Path(f"rows{ending}").write_bytes(gzip.compress(rows) if ending.endswith("gz") else rows)

    assert json.loads(iggyflux("dry-run", "retour.yaml", f"rows{ending}").out)["payload"] == {"kg": 2.5}
    assert iggyflux("validate", "retour.yaml", "--samples", f"rows{ending}").code == 0


BROKEN = {
    "cut gzip": ("a.gz", gzip.compress(LINES.encode())[:-9], "ends early"),
    "plain text as gzip": ("a.gz", LINES.encode(), "not gzip, or damaged"),
    "plain text as zstd": ("a.zst", LINES.encode(), "not zstd, or damaged"),
    "damaged gzip": ("a.gz", gzip.compress(LINES.encode())[:90] + bytes(90), "not gzip, or damaged"),
    "cut UTF-16": ("a", b"\xff\xfe" + LINES.encode("utf-16-le")[:-1], "begins as UTF-16"),
}


@pytest.mark.parametrize(("name", "content", "words"), BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("command", ["dry-run", "infer", "eval", "whole"])
def test_a_damaged_file_of_samples_is_named(command: str, name: str, content: bytes, words: str) -> None:
    Path(name).write_bytes(content)

    outcome = iggyflux(*[each.replace("FILE", name) for each in COMMANDS[command]])

    assert outcome.code == 1
    assert f"{name}: error[IFX504]" in outcome.err and words in outcome.err


@given(st.binary(max_size=200), st.sampled_from(["x.gz", "x.zst", "x"]), st.integers(0, 100))
def test_any_bytes_expand_or_are_a_sample_error(content: bytes, name: str, cut: int) -> None:
    """So do files that are cut anywhere."""
    codes = set()
    for data in (content, gzip.compress(content)[:cut], zstd.compress(content)[:cut], b"\xff\xfe" + content):
        try:
            assert all(SampleFile(expanded(io.BytesIO(data), name)))
        except SampleError as error:
            codes.add(error.code)
    assert codes <= {"IFX504"}


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_a_small_file_that_expands_without_end_is_refused_and_never_held(compress: object) -> None:
    """It is read line by line up to the limit."""
    packed = compress(b"{}\n" * 1_000_000)  # type: ignore[operator]
    name = "bomb.gz" if packed.startswith(b"\x1f") else "bomb.zst"
    lines = iter(SampleFile(expanded(io.BytesIO(packed), name, limit=200_000)))

    with pytest.raises(SampleError) as caught:
        sum(map(len, lines))

    assert (caught.value.code, len(packed) < 5_000) == ("IFX505", True)


def test_a_payload_that_is_itself_compressed_is_left_alone() -> None:
    """The name decides, not the content."""
    Path("waage.yaml").write_text(
        MAPPING.partition("examples")[0].replace("topic: waage", "topic: waage, payload: raw")
    )
    for content in (gzip.compress(b"x"), b"\xff\xfex\x00"):
        Path("packed").write_bytes(content)
        tree = (
            iggyflux("eval", "@", "packed", "--payload", "raw").err
            + iggyflux("dry-run", "waage.yaml", "packed", "--whole").err
        )

        assert "IFX504" not in tree


def test_what_is_missing_for_zstd_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iggyflux.authoring.sample_bytes.zstd", None)
    Path("a.zst").write_bytes(b"")

    outcome = iggyflux("dry-run", "waage.yaml", "a.zst")

    assert (outcome.code, "pip install 'iggyflux[zstd]'" in outcome.err) == (2, True)


def test_the_name_of_a_compressed_file_has_an_ending_more() -> None:
    names = ["a.csv.gz", "a.CSV.ZST", "a.csv", "gz", ".gz"]

    assert list(map(plain_name, names)) == ["a.csv", "a.CSV", "a.csv", "gz", ""]


# --- documents ---


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_document_in_utf_16_is_one_with_the_same_places(encoding: str, line_end: str) -> None:
    """Some characters have bytes that look like line ends (U+0D0A, U+010D, U+0A0D)."""
    text = MAPPING.replace("gewicht: 1", "gewicht: 1, ചഊčਊ਍: x").replace("\n", line_end)
    data = "\ufeff".encode(encoding) + text.encode(encoding)

    plain, wide = parse_document(text), parse_document(data)

    assert wide.tree == plain.tree
    assert wide.text == plain.text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("command", [("test", "--update"), ("validate", "--fix")])
def test_a_document_in_utf_16_is_found_and_stays_in_utf_16_when_it_is_changed(
    encoding: str, command: tuple[str, str]
) -> None:
    mark = "\ufeff".encode(encoding)
    wrong = MAPPING.replace("kg=1.0", "kg=2.0").replace("kg: gewicht", "kg: gewcht")
    Path("docs").mkdir()
    Path("docs/breit.yaml").write_bytes(mark + wrong.encode(encoding))

    outcome = iggyflux(command[0], "docs", *command[1:])

    assert outcome.code in (0, 1), outcome.err
    changed = Path("docs/breit.yaml").read_bytes()
    assert changed.startswith(mark) and changed != mark + wrong.encode(encoding)
    assert changed[2:].decode(encoding).startswith("iggyflux: 1\nkind: writer\n")


def test_a_damaged_document_in_utf_16_shows_no_line_of_it() -> None:
    """It may be a pipeline with a password in it."""
    text = "iggyflux: 1\niggy: {password: ganzgeheim}\n"
    Path("pipeline.yaml").write_bytes(b"\xff\xfe" + text.encode("utf-16-le")[:-3] + b"\x00\xd8a\x00")

    for form in ("text", "json", "sarif", "github"):
        outcome = iggyflux("validate", "pipeline.yaml", "--format", form)
        assert (outcome.code, "IFX103" in outcome.out, "geheim" in outcome.out) == (1, True, False)


BREAKS = st.lists(st.tuples(st.text("ab:é ", max_size=4), st.sampled_from(["\n", "\r\n"])), max_size=12)


@given(BREAKS, st.text("ab", max_size=2), st.booleans(), st.data())
def test_a_changed_document_keeps_the_line_breaks_of_all_other_lines(
    lines: list[tuple[str, str]], last: str, is_wide: bool, data: st.DataObject
) -> None:
    """Of both kinds in one file too; the line that is new has one of them."""
    text = "".join(line + its for line, its in lines) + last
    encoding = "utf-16-be" if is_wide else "utf-8"
    content = ("\ufeff" if is_wide else "").encode(encoding) + text.encode(encoding)
    editable = EditableText.of(content)
    assert editable is not None
    assert editable.with_text(editable.text) == content

    at = data.draw(st.integers(0, len(lines)))
    changed = editable.text.split("\n")
    changed.insert(at, "new")
    written = editable.with_text("\n".join(changed)).decode(encoding).removeprefix("\ufeff")

    assert written.replace("\r\n", "\n") == "\n".join(changed)
    before, after = "".join(line + its for line, its in lines[:at]), "".join(line + its for line, its in lines[at:])
    assert written.startswith(before + "new") or at == len(lines)
    assert written.endswith(after + last) or at == len(lines)


def test_lines_broken_by_lone_carriage_returns_are_left() -> None:
    """A YAML reader takes them for line breaks, a TOML reader does not."""
    assert EditableText.of(b"a: b\rc: d\n") is None


# --- messages with coordinates ---

ENVELOPES = "".join(
    json.dumps({"payload": json.loads(line), "topic": "auto", "offset": 7 + number}) + "\n"
    for number, line in enumerate(LINES.splitlines()[:3])
)
LOOK = "the samples look like messages with coordinates; add --envelope"


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "whole"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_samples_that_look_like_messages_get_a_note_and_stay_payloads(command: str, encoding: str) -> None:
    """Only `--envelope` or `--envelope auto` take them as messages, wherever the option is written."""
    Path("m.ndjson").write_bytes(ENVELOPES.encode(encoding))
    words = [each.replace("FILE", "m.ndjson") for each in COMMANDS[command]]

    unasked = iggyflux(*words)
    outcomes = [
        iggyflux(*words, "--envelope"),
        iggyflux(words[0], *words[1:2] * (words[0] == "log"), "--envelope", "auto", *words[1 + (words[0] == "log") :]),
    ]

    assert LOOK in unasked.err
    assert not any(LOOK in each.err for each in outcomes)
    if command in ("dry-run", "infer", "eval"):
        assert unasked.out != outcomes[0].out
    if command != "log append":  # its offsets go on
        assert outcomes[0] == outcomes[1] != unasked


@pytest.mark.parametrize(
    "line",
    [
        '{"payload": {"ort": 1}}',
        '{"offset": 5}',
        '{"payload": 1, "offset": "5"}',
        "[]",
        '"x"',
        "x",
        "",
        '{"ort": "auto"}',
    ],
)
@pytest.mark.parametrize("option", [(), ("--envelope", "auto")])
def test_what_may_be_a_plain_payload_is_one_and_has_no_note(line: str, option: tuple[str, ...]) -> None:
    Path("p.ndjson").write_text(f"{line}\n{ENVELOPES}")

    outcome = iggyflux("eval", "@", "p.ndjson", "--compact", *option)

    assert LOOK not in outcome.err
    assert len(outcome.out.splitlines()) >= 3


def test_a_file_named_auto_can_be_read_with_envelopes() -> None:
    Path("auto").write_text(ENVELOPES)

    assert iggyflux("eval", "meta('offset')", "--envelope", "--", "auto").out == "7\n8\n9\n"
    assert iggyflux("eval", "meta('offset')", "auto", "--message").out == "7\n8\n9\n"


def test_infer_takes_files_of_one_kind() -> None:
    Path("m.ndjson").write_text(ENVELOPES)

    outcome = iggyflux("infer", "m.ndjson", "plain.ndjson", "--envelope", "auto")

    assert (outcome.code, "infer one kind at a time" in outcome.err) == (2, True)


@pytest.mark.parametrize("command", [("test", "--update"), ("validate", "--fix")])
def test_a_file_whose_lines_end_in_both_ways_is_changed_only_where_it_must_be(command: tuple[str, str]) -> None:
    lines = MAPPING.replace("kg=1.0", "kg=2.0").replace("kg: gewicht", "kg: gewcht").splitlines()
    before = "".join(line + ("\r\n" if number % 3 else "\n") for number, line in enumerate(lines)).encode()
    Path("beide.yaml").write_bytes(before)

    iggyflux(command[0], "beide.yaml", *command[1:])
    after = Path("beide.yaml").read_bytes()

    kept = [line for line in before.splitlines(True) if line in after.splitlines(True)]
    assert after != before
    assert len(kept) >= len(lines) - 2


def test_samples_beside_a_mapping_are_found_compressed() -> None:
    path = Path("waage.yaml")
    Path("samples").mkdir()
    Path("samples/waage.ndjson.gz").write_bytes(gzip.compress(ENVELOPES.encode()))
    found = find_samples(path, MAPPING)
    assert found == Path("samples/waage.ndjson.gz")

    first = samples_beside(load_mapping(path), found)[0]

    assert isinstance(first, Message) and first.topic == "auto"
    Path("samples/waage.ndjson.gz").write_bytes(b"damaged")
    assert samples_beside(load_mapping(path), found) == ()


@pytest.mark.parametrize("payload", [b"\x08peat\x0a\x00\x02", b"peat\n\xff\x0a", b"\x9c\n\x01"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_binary_payload_is_not_appended_in_pieces(payload: bytes, ending: str) -> None:
    """A byte 0x0a in it would end a line; `--whole` keeps it."""
    Path(f"soil{ending}").write_bytes(gzip.compress(payload) if ending else payload)

    refused = iggyflux("log", "append", "data", "field/soil", f"soil{ending}")
    kept = iggyflux("log", "append", "data", "field/soil", f"soil{ending}", "--whole")

    assert (refused.code, refused.out) == (2, "")
    assert f"soil{ending}:" in refused.err and "--whole" in refused.err and "--envelope" in refused.err
    assert kept.code == 0
    (line,) = iggyflux("log", "tail", "data", "field/soil", "--envelope").out.splitlines()
    assert base64.b64decode(json.loads(line)["payload_base64"]) == payload


def test_any_text_is_appended_line_by_line() -> None:
    iggyflux("log", "append", "data", "field/soil", stdin="čern\u00a0ozem\n{no json\n".encode())

    assert iggyflux("log", "tail", "data", "field/soil").out.splitlines() == ["čern\u00a0ozem", "{no json"]


XML = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t, payload: xml}
points:
  measurement: {const: lift}
  tags: {site: log.site}
  fields: {load: {expr: log.load, cast: true}}
  timestamp: {expr: log.at, format: rfc3339}
"""


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("names_encoding", [True, False])
def test_a_document_of_xml_has_the_encoding_that_it_names(mark: bytes, names_encoding: bool) -> None:
    """Its declaration is about its bytes, so they stay as they are; without one the mark says it."""
    encoding = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(mark, "utf-8")
    names = f' encoding="{encoding[:6]}"' if names_encoding and mark else ""
    at = "2026-02-01T06:00:00Z"
    text = f'<?xml version="1.0"{names}?>\n<log><site>Köln</site>\n<load>2.5</load><at>{at}</at></log>\n'
    Path("a.xml").write_bytes(mark + text.encode(encoding))
    Path("x.yaml").write_text(XML, "utf-8")
    line = "lift,site=Köln load=2.5 1769925600000000000"

    for command in (("dry-run", "x.yaml", "a.xml", "--whole"), ("load", "x.yaml", "a.xml", "--whole", "--dry-run")):
        outcome = iggyflux(*command)
        assert outcome.out.splitlines() == [line], outcome.err
    assert iggyflux("eval", "log.site", "a.xml", "--payload", "xml", "--whole").out == '"Köln"\n'
    for options in ([], ["--whole"]):
        inferred = iggyflux("infer", "a.xml", *options)
        assert "payload: xml " in inferred.out, inferred.err
    assert iggyflux("log", "append", "data", "s/t", "a.xml", "--whole").code == 0
    assert iggyflux("dry-run", "x.yaml", "log:data").out.splitlines() == [line]
