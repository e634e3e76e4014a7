"""What mappings write, and fields with two types: `authoring.contract`, `validate` and `schema --of`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.authoring.contract import columns_of
from iggyflux.authoring.examples import example_message
from iggyflux.lineprotocol import parse_line
from iggyflux.mapping import WriterMapping, load_mapping
from iggyflux.pipeline.addresses import same_url

MAPPINGS = sorted((Path(__file__).parent.parent / "mappings").glob("*.yaml"))
BOAT = """\
iggyflux: 1
kind: writer
name: {name}
from: {{stream: harbour, topic: {name}}}
points:
  - measurement: {measurement}
    tags: {{berth: b}}
    fields: {{draught: {field}}}
    timestamp: {{expr: t, format: unix_s}}
"""
PIPELINE = """\
iggyflux: 1
influxdb: {{url: "${{UNSET_URL}}", org: pier, bucket: one}}
run:
  - mapping: sail.yaml
  - mapping: motor.yaml
{more}"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, field: str, *, measurement: str = "{const: boat}", examples: str = "") -> None:
    Path(f"{name}.yaml").write_text(BOAT.format(name=name, field=field, measurement=measurement) + examples)


def example(draught: object, **members: object) -> str:
    return (
        f"examples:\n  - message: {json.dumps({'b': 'b7', 't': 1767225600, 'd': draught, **members})}\n    points: []\n"
    )


def conflicts() -> list[tuple[str, str, str]]:
    """Return code, file and message of the conflicts in this folder."""
    problems = json.loads(iggyflux("validate", ".", "--format", "json").out)["problems"]
    return [(each["code"], each["file"], each["message"]) for each in problems if each["code"] in ("IFX167", "IFX168")]


@pytest.mark.parametrize(
    ("sail", "motor", "is_conflict"),
    [
        ("d", "{expr: d, type: integer}", True),
        ("d", "{expr: d, type: float}", False),
        ("{expr: d, type: string}", "{expr: d, type: boolean}", True),
        ("{const: 7}", "d", False),
        ("{const: deep}", "d", True),
        ("{const: true}", "{expr: d, type: boolean}", False),
        ("{expr: d, type: unsigned}", "{expr: d, type: integer}", True),
        ("{expr: d, type: auto}", "d", False),
    ],
)
def test_a_field_has_one_type_in_all_documents(sail: str, motor: str, is_conflict: bool) -> None:
    write("motor", motor)
    write("sail", sail)
    found = conflicts()
    assert [(code, file) for code, file, _ in found] == ([("IFX168", "sail.yaml")] if is_conflict else [])
    assert all("motor.yaml:8:" in message for *_, message in found)


def test_other_names_do_not_conflict() -> None:
    write("motor", "{expr: d, type: integer}", measurement="{const: motorboat}")
    write("sail", "d")
    assert conflicts() == []


@pytest.mark.parametrize("is_array", [False, True])
def test_examples_show_computed_measurements_stars_and_types_of_the_payload(is_array: bool) -> None:
    field = "{expr: d, type: auto}" if is_array else "d"
    write("motor", field, measurement="k", examples=example("deep" if is_array else 3.5, k="boat"))
    write("sail", "{expr: d, type: integer}")
    assert [(code, file) for code, file, _ in conflicts()] == [("IFX168", "sail.yaml")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", "IFX167"),
        ("    influxdb: {bucket: one}\n", "IFX167"),
        ("    influxdb: {bucket: two}\n", None),
        ("    influxdb: {url: '${UNSET_URL}/'}\n", "IFX167"),
        ("    to: stdout\n", None),
    ],
)
def test_a_pipeline_says_whether_the_databases_are_the_same(more: str, expected: str | None) -> None:
    """Also where variables of the pipeline have no value, as in CI."""
    write("motor", "{expr: d, type: integer}")
    write("sail", "d")
    Path("pipeline.yaml").write_text(PIPELINE.format(more=more))
    found = conflicts()
    assert [code for code, *_ in found] == ([expected] if expected else [])
    assert iggyflux("validate", ".").code == (expected == "IFX167")


@pytest.mark.parametrize(("bucket", "expected"), [("${QUAY}", "IFX168"), ("berth", "IFX167")])
def test_a_variable_without_a_value_may_differ_between_pipelines(bucket: str, expected: str) -> None:
    """Each pipeline is run in its own environment; within one a variable has one value."""
    write("motor", "{expr: d, type: integer}")
    write("sail", "d")
    server = f"from: log:data\ninfluxdb: {{url: 'http://pier.example:8086', org: o, bucket: '{bucket}'}}"
    for name in ("motor", "sail"):
        Path(f"{name}-pipeline.yaml").write_text(f"iggyflux: 1\n{server}\nrun: [{{mapping: {name}.yaml}}]\n")
    assert [code for code, *_ in conflicts()] == [expected]


def test_two_points_of_one_document_are_compared_too() -> None:
    write("sail", "d")
    text = Path("sail.yaml").read_text()
    again = text[text.index("  - measurement") :].replace("{draught: d}", "{draught: {expr: d, type: string}}")
    Path("sail.yaml").write_text(text + again)
    ((code, file, message),) = conflicts()
    assert (code, file) == ("IFX167", "sail.yaml")
    assert "is string here, and float at line 8:" in message


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_every_point_of_the_examples_is_in_the_columns(path: Path) -> None:
    """The columns are compared with the lines, by the parser: names and types of fields, and the keys of tags."""
    mapping = load_mapping(path)
    if not isinstance(mapping, WriterMapping):
        return
    columns = {(each.measurement, each.kind, each.key, each.type) for each in columns_of(mapping)}
    names = {bool: "boolean", float: "float", int: "integer", str: "string"}
    for number, tree in enumerate(mapping.examples):
        for line in mapping.plan("reference").render([example_message(mapping, tree, number)]).lines:
            point = parse_line(line)
            assert {(point.measurement, "tag", key, None) for key in point.tags} <= columns
            types = {key: names.get(type(value), "unsigned") for key, value in point.fields.items()}
            assert {(point.measurement, "field", key, name) for key, name in types.items()} <= columns


def test_schema_of_a_mapping_as_a_table_and_as_json() -> None:
    write("sail", "{expr: d, type: integer}", measurement="k", examples=example(2, k="dinghy"))
    done = iggyflux("schema", "--of", "sail.yaml")
    assert done.out.splitlines() == [
        "measurement  column  name     type",
        "dinghy       tag     berth    string",
        "dinghy       field   draught  integer",
        "(computed)   tag     berth    string",
        "(computed)   field   draught  integer",
    ]
    found = json.loads(iggyflux("schema", "--of", "sail.yaml", "--format", "json").out)
    fields = [{"key": "draught", "type": "integer"}]
    assert found == [
        {"measurement": "dinghy", "tags": ["berth"], "fields": fields},
        {"measurement": None, "tags": ["berth"], "fields": fields},
    ]


def test_a_reader_has_no_such_schema() -> None:
    reader = next(path for path in MAPPINGS if path.stem == "history-rows")
    assert iggyflux("schema", "--of", reader).code == 2


def test_a_kind_beside_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sail.yaml").write_text("iggyflux: 1\n")
    done = iggyflux("schema", "--of", tmp_path / "sail.yaml", "mapping")
    assert (done.code, "--of is for a mapping" in done.err) == (2, True)


KINDS = {
    "tag": "    tags: [berth]\n    fields: {d: d}\n",
    "field": "    fields: {berth: {expr: berth, type: string}}\n",
}


@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize(("sail", "motor"), [("tag", "field"), ("field", "tag"), ("tag", "tag"), ("field", "field")])
def test_a_name_is_a_tag_or_a_field_in_all_documents(sail: str, motor: str, is_named: bool) -> None:
    for name, kind in (("sail", sail), ("motor", motor)):
        head = BOAT.format(name=name, field="d", measurement="{const: boat}").partition("    tags:")[0]
        Path(f"{name}.yaml").write_text(f"{head}{KINDS[kind]}    timestamp: {{expr: t, format: unix_s}}\n")
    if is_named:
        Path("pipeline.yaml").write_text(PIPELINE.format(more=""))
    done = iggyflux("validate", ".", "--format", "json")
    told = [each["message"] for each in json.loads(done.out)["problems"] if each["code"] == "IFX170"]
    end = "" if is_named else ", if both write to one database"

    assert done.code == 0
    assert [each.endswith(end) for each in told] == ([True] if sail != motor else [])
    # The pipeline names the sail first; without it, files come in the order of their names.
    here, there = (motor, sail) if is_named else (sail, motor)
    file = "sail.yaml" if is_named else "motor.yaml"
    assert all(f"`berth` of `boat` is a {here} here, and a {there} at {file}:" in each for each in told)


@pytest.mark.parametrize(
    ("url", "is_same"),
    [
        ("http://pier.example:8086", True),
        ("http://Pier.Example:8086/", True),
        ("HTTP://pier.example.:8086", True),
        ("${PIER}", True),
        ("${PIER}/", True),
        ("${NO_PIER:-http://pier.example:8086}", True),
        ("https://pier.example:8086", False),
        ("http://pier.example", False),
        ("http://pier.example:8086/influx", False),
        ("http://jetty.example:8086", False),
        ("${NO_PIER}", None),
    ],
)
def test_a_url_has_many_spellings(url: str, is_same: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIER", "http://PIER.example:8086")
    write("motor", "{expr: d, type: integer}")
    write("sail", "d")
    base = PIPELINE.replace("${{UNSET_URL}}", "http://pier.example:8086")
    Path("pipeline.yaml").write_text(base.format(more=f"    influxdb: {{url: '{url}'}}\n"))

    assert [code for code, *_ in conflicts()] == {True: ["IFX167"], False: [], None: ["IFX168"]}[is_same]


@pytest.mark.parametrize(("one", "other"), [("http://h:80/", "http://h"), ("https://h", "https://H:443")])
def test_a_default_port_is_left_out(one: str, other: str) -> None:
    assert same_url(one) == same_url(other)


@given(st.text(max_size=30))
def test_any_text_has_one_spelling(text: str) -> None:
    assert same_url(same_url(text)) == same_url(text)


def test_a_star_is_a_column_of_its_schema() -> None:
    write("sail", "d")
    text = (
        Path("sail.yaml")
        .read_text()
        .replace("{berth: b}", "{berth: b, 'of_*': crew}")
        .replace("{draught: d}", "{'*': '@'}")
    )
    Path("sail.yaml").write_text(text)
    rows = [line.split() for line in iggyflux("schema", "--of", "sail.yaml").out.splitlines()]

    assert [row[1:] for row in rows[1:]] == [
        ["tag", "berth", "string"],
        ["tag", "of_*", "string"],
        ["field", "*", "auto"],
    ]
