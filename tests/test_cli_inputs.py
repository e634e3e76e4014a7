"""What a person gets who gives a command other inputs than it expects."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.errors import listed
from iggyflux.transports.local.log import Log
from tests.shell import iggyflux

pytestmark = pytest.mark.usefixtures("empty_folder")

MAPPING = """
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
where: "class.lambda == '3' && del > `1`"
points: {measurement: {const: m}, fields: {a: 'parse_number(def)'}, timestamp: {spread: offset}}
"""


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("while.yaml").write_text(MAPPING)
    Path("samples").write_text('{"class": {"lambda": 3}, "def": "x"}\n{"class": {"lambda": 4}, "del": true}\n')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dry-run", "samples", "while.yaml"), "while.yaml is the mapping, which comes first"),
        (("dry-run", "class.lambda", "samples"), "`iggyflux eval` evaluates an expression"),
        (("eval", "samples", "class.lambda"), "the expression comes first"),
        (("log", "info", "none"), "no log in none; create it with"),
        (("log", "tail", "none", "s/t"), "no log in none"),
        (("dry-run", "while.yaml", "log:none"), "no log in none"),
    ],
)
def test_another_input_than_expected_is_a_wrong_usage_with_a_hint(arguments: tuple[str, ...], words: str) -> None:
    outcome = iggyflux(*arguments)

    assert outcome.code == 2
    assert words in outcome.err


@pytest.mark.parametrize("name", ["m", "m.yaml", "m.conf", "m.bak", "m.v2", "m.txt"])
@pytest.mark.parametrize("args", [["validate"], ["run"]])
def test_a_syntax_error_is_shown_whatever_the_name_of_the_document(name: str, args: list[str]) -> None:
    """Only a name of data makes a file that cannot be read a forgotten argument."""
    Path(name).write_text(MAPPING + "tags: [b\n", "utf-8")

    outcome = iggyflux(*args, name)

    assert outcome.code == 1, outcome.err
    assert f"{name}:7:7: error[IFX101]: the [ is not closed" in outcome.out + outcome.err


DEEP = b"[" * 9000 + b"]" * 9000
READER = """
iggyflux: 1
kind: reader
from: {measurement: m}
to: {stream: s, topic: t}
"""


@pytest.mark.parametrize("deep", [DEEP, DEEP[:9000], b'{"del": ' + DEEP + b"}"], ids=["closed", "open", "member"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("dry-run", "while.yaml", "-"), 1),
        (("dry-run", "while.yaml", "-", "--envelope"), 1),
        (("dry-run", "reader.yaml", "-"), 1),
        (("load", "while.yaml", "deep.ndjson", "--dry-run", "--message-time", "2026-01-01T00:00:00Z"), 1),
        (("infer", "-"), 1),
        (("eval", "del", "-"), 1),
        (("validate", "while.yaml", "--samples", "-"), 0),
        (("log", "append", "data", "s/t", "-"), 0),
        (("dead-letters", "list", "deep.ndjson"), 3),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_lines_that_are_nested_too_deeply_are_a_fault_of_the_input(
    arguments: tuple[str, ...], code: int, deep: bytes
) -> None:
    """No parser of the machine may go so deep; whatever they are, the other lines are read."""
    Path("deep.ndjson").write_bytes(deep + b'\n{"class": {"lambda": 3}}\n')
    Path("reader.yaml").write_text(READER)
    outcome = iggyflux(*arguments, stdin=Path("deep.ndjson").read_bytes())

    assert outcome.code == code, outcome.err
    assert "a bug in iggyflux" not in outcome.err
    if arguments[0] == "log":
        assert iggyflux("log", "tail", "data", "s/t", "--envelope").out.count("\n") == 2


def test_eval_shows_the_warnings_of_its_expression() -> None:
    outcome = iggyflux("eval", "class[?lambda == lambda]", "samples")

    assert (outcome.code, outcome.out) == (0, "null\nnull\n")
    assert "warning[IFX222]: both sides are the same" in outcome.err


def test_eval_notes_that_its_expression_is_a_file() -> None:
    assert "is also a file" in iggyflux("eval", "while.yaml", "samples").err
    assert "is also a file" not in iggyflux("eval", "class", "samples").err


def test_a_log_is_not_made_where_no_message_can_be_generated() -> None:
    Path("while.yaml").write_text(MAPPING.replace("parse_number(def)", "divide(def, subtract(def, def))"))
    outcome = iggyflux("log", "generate", "while.yaml", "--into", "new")

    assert outcome.code == 1
    assert not Path("new").exists()


def test_a_where_that_skips_every_sample_shows_why() -> None:
    outcome = iggyflux("dry-run", "while.yaml", "samples")

    assert "compared with a number, in each sample, this is a string" in outcome.err
    Path("samples").write_text('{"class": {"lambda": "3"}, "del": 2, "def": "5"}\n{}\n')
    assert "compared with" not in iggyflux("dry-run", "while.yaml", "samples").err


@pytest.mark.parametrize("text", ["{{ stream }}", "x-{{topic}}", "{{ a.b | upper }}"])
def test_a_template_in_a_document_gets_a_hint(text: str) -> None:
    Path("while.yaml").write_text(MAPPING.replace("topic: t", f'topic: "{text}"'))
    assert "warning[IFX156]" in iggyflux("validate", "while.yaml").out
    Path("while.yaml").write_text(MAPPING.replace("topic: t", "topic: {{ topic }}"))
    assert "a document has no {{ }}" in iggyflux("validate", "while.yaml").out


@given(st.lists(st.text(max_size=8), unique=True, max_size=30), st.text(max_size=8))
def test_a_list_of_what_is_there_begins_with_the_most_similar_name(names: list[str], word: str) -> None:
    """It is short, and says how many names it leaves out."""
    names = [name for name in names if ", " not in name]
    shown = listed([*names, word], word)

    assert shown == word or shown.startswith((f"{word}, ", f"{word} and "))
    assert (" more" in shown) or shown.count(", ") == len(names)
    assert len(shown) < 200


def test_a_file_is_one_payload_for_every_command_that_reads_samples() -> None:
    Path("del.csv").write_text("if,else\na,1\nb,2\n")
    appended = iggyflux("log", "append", "log", "s/t", "del.csv", "--whole")

    assert iggyflux("eval", "[].else", "del.csv", "--payload", "csv", "--whole").out == '["1","2"]\n'
    assert appended.err == "appended 1 message to s/t: now at 0@0\n"
    assert iggyflux("log", "tail", "log", "s/t", "--envelope").out.count("aWYsZWxzZQphLDEKYiwyCg==") == 1


@pytest.mark.parametrize("command", [("eval", "class", "samples"), ("log", "append", "log", "s/t", "samples")])
def test_a_file_is_not_one_payload_and_many_messages(command: tuple[str, ...]) -> None:
    outcome = iggyflux(*command, "--whole", "--envelope")

    assert (outcome.code, "--whole and --envelope are mutually exclusive" in outcome.err) == (2, True)
    assert not Path("log").exists()


@pytest.mark.parametrize(
    ("file", "out", "words"),
    [
        ((), "null\n", "stdin is empty: the expression is evaluated on null"),
        (("-",), "", "<stdin> is empty: there is nothing"),
    ],
)
def test_eval_says_that_there_is_no_document(file: tuple[str, ...], out: str, words: str) -> None:
    outcome = iggyflux("eval", "class", *file, stdin=b" \n")

    assert (outcome.code, outcome.out) == (0, out)
    assert words in outcome.err


@pytest.mark.parametrize(
    "data",
    [
        b'{"class": 1}\n{"class": 2}\n',
        b'[{"class": 1},\n {"class": 2}]\n',
        b'{"class": {\n"del": 1}}',
        b'{"a": 1}\n{"a"',
        b'{"a": "\xe9"}',
    ],
)
def test_data_in_place_of_a_mapping_is_named(data: bytes) -> None:
    outcome = iggyflux("validate", "-", stdin=data)

    assert outcome.code == 1
    is_text = b"\xe9" not in data
    assert ("this is data in JSON" in outcome.out, "`iggyflux infer` writes a mapping" in outcome.out) == (is_text,) * 2


@pytest.mark.parametrize("document", [b'{"iggyflux": 1, "kind": "writer"}', b"{class: 1}", b'"while"', b"[" * 5000])
def test_a_document_is_not_taken_for_data(document: bytes) -> None:
    assert "this is data in JSON" not in iggyflux("validate", "-", stdin=document).out


@pytest.mark.parametrize(("byte", "encoding", "shown"), [(b"\xe9", "Latin-1", "é"), (b"\x80", "Windows-1252", "€")])
def test_text_of_an_older_encoding_is_named_with_its_place(byte: bytes, encoding: str, shown: str) -> None:
    Path("old").write_bytes(b'{"class": "' + byte + b'tude"}\n')
    Path("old.yaml").write_bytes(MAPPING.encode() + b"# " + byte + b"tude\n")
    evaluated, document = iggyflux("eval", "class", "old"), iggyflux("validate", "old.yaml")
    checked = iggyflux("validate", "while.yaml", "--samples", "old")

    assert f"0x{byte.hex()} at byte 11; in {encoding} it is {shown}" in evaluated.err
    assert "iconv converts a file" in evaluated.err
    assert f"old.yaml:7:3: error[IFX103]: byte 0x{byte.hex()} is not UTF-8: in {encoding} it is {shown}" in document.out
    assert f"at byte 11; in {encoding} it is {shown}" in checked.out


def test_a_document_of_xml_in_lines_is_named_and_whole_it_is_one_message(tmp_path: Path) -> None:
    file = tmp_path / "dam.xml"
    file.write_text('<?xml version="1.0"?>\n<dam>\n  <gate id="3"/>\n</dam>\n')

    assert "append it with --whole" in iggyflux("log", "append", tmp_path / "d", "s/t", file).err
    assert "--whole" not in iggyflux("log", "append", tmp_path / "d", "s/u", file, "--whole").err
    file.write_text("<gate/>\n<gate/>\n")
    assert "--whole" not in iggyflux("log", "append", tmp_path / "d", "s/v", file).err


def test_a_whole_file_that_is_expanded_by_its_name_is_named(tmp_path: Path) -> None:
    file = tmp_path / "dam.bin.gz"
    file.write_bytes(packed := gzip.compress(b"open"))
    done = iggyflux("log", "append", tmp_path / "d", "s/t", file, "--whole")
    kept = iggyflux("log", "append", tmp_path / "d", "s/t", "-", "--whole", stdin=packed)

    assert f"{file} is expanded because of its name; give it the name dam.bin" in done.err
    assert "expanded" not in kept.err
    assert [each.payload for each in Log.open(tmp_path / "d").tail("s", "t", 2)] == [b"open", packed]


@pytest.mark.parametrize("end", range(1, 7))
def test_xml_that_ends_early_may_be_a_line_of_a_document(tmp_path: Path, end: int) -> None:
    lines = ['<?xml version="1.0"?>', "<dam>", "<gate", 'id="3">', "<![CDATA[", "x]]>", "</gate>", "</dam>"]
    document = tmp_path / "m.yaml"
    document.write_text(
        "{iggyflux: 1, kind: writer, from: {stream: s, topic: t, payload: xml}, points: {measurement: {const: dam},"
        " fields: {gate: {expr: 'dam.gate.\"@id\"', cast: true}}, timestamp: {expr: '`1`', format: unix_s}}}"
    )
    begun = iggyflux("dry-run", document, "-", stdin=" ".join(lines[:end]))
    whole = iggyflux("dry-run", document, "-", "--whole", stdin="\n".join(lines))
    wrong = iggyflux("dry-run", document, "-", stdin="<dam></gate>")

    assert "`--whole`" in begun.err and begun.code == 1
    assert whole.out == "dam gate=3.0 1000000000\n"
    assert "--whole" not in wrong.err and wrong.code == 1
