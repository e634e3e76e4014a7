"""`dry-run`, `eval` and `explain`: what goes to stdout is what is sent, what is said helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.authoring.samples import Coordinates, read_samples
from iggyflux.authoring.series import SeriesCount, measurement_of
from iggyflux.cli.tally import Tally
from iggyflux.delivery.lines import point_key
from iggyflux.errors import PointError
from iggyflux.lineprotocol import Point, parse_line
from iggyflux.mapping import WriterMapping, load_mapping
from iggyflux.records import Failure

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
tables: {sites: {d1: berlin}}
points:
  measurement: {const: m}
  tags: {d: d, site: "lookup('sites', d)", topic: "meta('topic')"}
  fields: {a: a, u: {expr: u, type: unsigned}}
  timestamp: {expr: ts, format: unix_ms}
"""
SAMPLES = b'{"d": "d1", "a": 1, "ts": 1700000000123}\n{"d": "d2", "a": "x", "ts": 2}\n{"d": "d2", "u": 7, "ts": 2}\n'


@pytest.fixture
def mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("env.yaml")
    path.write_text(DOCUMENT, "utf-8")
    return path


def dry_run(*options: str, stdin: bytes = SAMPLES) -> tuple[int, str, str]:
    outcome = iggyflux("dry-run", "env.yaml", "-", *options, stdin=stdin)
    return outcome.code, outcome.out, outcome.err


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["m,d=d1,site=berlin,topic=t a=1.0 1700000000123000000", "m,d=d2,topic=t u=7u 2000000"]),
        (["--precision", "s"], ["m,d=d1,site=berlin,topic=t a=1.0 1700000000", "m,d=d2,topic=t u=7u 0"]),
        (["--dialect", "v1"], ["m,d=d1,site=berlin,topic=t a=1.0 1700000000123000000"]),
        (
            ["--plan", "reference"],
            ["m,d=d1,site=berlin,topic=t a=1.0 1700000000123000000", "m,d=d2,topic=t u=7u 2000000"],
        ),
        (["--limit", "1"], ["m,d=d1,site=berlin,topic=t a=1.0 1700000000123000000"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and value[0].startswith("--") else "",
)
def test_rule_23_dialect_and_precision_belong_to_the_run(options: list[str], expected: list[str]) -> None:
    """stdout is the lines as they would be sent, a line feed after each."""
    code, out, _ = dry_run(*options)

    assert out == "".join(f"{line}\n" for line in expected)
    assert code == (0 if options[:1] == ["--limit"] else 1)


def test_lines_are_those_of_the_plan(mapping: Path) -> None:
    """Byte for byte, over more samples than are rendered at once."""
    payloads = [b'{"d": "d%d", "a": %d.5, "ts": %d}\n' % (number % 7, number, number) for number in range(1300)]
    writer = load_mapping(mapping).writer
    assert writer is not None
    messages = [sample.message for sample in read_samples(payloads, Coordinates.of(writer.source))]

    code, out, err = dry_run(stdin=b"".join(payloads))

    assert code == 0
    assert out.splitlines() == list(load_mapping(mapping).plan().render(messages).lines)
    assert "in 7 series" in err


@pytest.mark.usefixtures("mapping")
def test_a_refusal_names_sample_place_code_reason_and_help() -> None:
    """The first of a kind with its source line, the next in one line."""
    _, _, err = dry_run(stdin=SAMPLES + b'{"d": "d2", "a": "y", "ts": 2}\n')

    assert "sample 2: env.yaml:8:15: error[IFX340]: expected a number, found string 'x'" in err
    assert "  8 |   fields: {a: a, u: {expr: u, type: unsigned}}\n    |               ^\n    hint: " in err
    assert "sample 4: error[IFX340]: expected a number, found string 'y'" in err


@pytest.mark.usefixtures("mapping")
def test_many_failures_are_counted_not_listed() -> None:
    """Fifty are enough to read."""
    _, _, err = dry_run(stdin=b'{"d": "d2", "a": "y", "ts": 2}\n' * 200)

    assert "… and 150 more failures" in err
    assert err.count("error[IFX340]") == 50
    assert "IFX340        200   at env.yaml:8:15" in err


@pytest.mark.usefixtures("mapping")
def test_json_has_a_message_a_line_and_a_summary() -> None:
    """With places that an editor can jump to."""
    _, out, _ = dry_run("--format", "json")

    first, second, third, summary = map(json.loads, out.splitlines())
    assert first["lines"] == ["m,d=d1,site=berlin,topic=t a=1.0 1700000000123000000"]
    assert (second["outcome"], second["failures"][0]["line"], second["failures"][0]["column"]) == ("failed", 8, 15)
    assert third["sample"] == 3
    assert summary["summary"]["measurements"] == {
        "m": {"points": 2, "series": 2, "tags": {"d": 2, "site": 1, "topic": 1}}
    }


@pytest.mark.usefixtures("mapping")
def test_rule_22_points_that_overwrite_those_of_other_messages_are_counted() -> None:
    """The plan cannot see them, a dry run can."""
    _, _, err = dry_run(
        stdin=b'{"d": "d1", "a": 1, "ts": 1}\n{"d": "d2", "a": 1, "ts": 1}\n{"d": "d1", "a": 2, "ts": 1}\n'
    )

    assert "collisions        1" in err
    assert "(for example sample 1 by sample 3)" in err


@pytest.mark.usefixtures("mapping")
def test_a_log_is_a_source_of_samples() -> None:
    """The last messages of the mapping's topics."""
    iggyflux("log", "append", "data", "s/t", stdin=b"".join(b'{"d": "d1", "a": %d, "ts": 1}\n' % n for n in range(30)))

    outcome = iggyflux("dry-run", "env.yaml", "log:data", "--limit", "2")

    assert outcome.out == "m,d=d1,site=berlin,topic=t a=28.0 1000000\nm,d=d1,site=berlin,topic=t a=29.0 1000000\n"


def test_messages_of_a_log_are_those_of_every_topic_that_is_meant(mapping: Path) -> None:
    """A name, a glob and a list of them, each topic once."""
    mapping.write_text(DOCUMENT.replace("topic: t}", "topic: ['t-*', t-1]}"), "utf-8")
    for topic in ("t-1", "t-2", "other"):
        iggyflux("log", "append", "data", f"s/{topic}", stdin=b'{"d": "d1", "a": 1, "ts": 1}\n')

    outcome = iggyflux("dry-run", "env.yaml", "log:data")

    assert outcome.out == "m,d=d1,site=berlin,topic=t-1 a=1.0 1000000\nm,d=d1,site=berlin,topic=t-2 a=1.0 1000000\n"


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize(
    ("samples", "notes"),
    [
        (b'{\n"a": 1\n}', ["a JSON document over several lines is one message\n"]),
        (
            b'[\n{"a": 1}\n]',
            ["a JSON document over several lines is one message; `jq -c '.[]'` turns each element into a message\n"],
        ),
        (b'[{"a": 1}]\n', []),
    ],
    ids=["an object", "a list", "a line"],
)
def test_rule_28_what_is_assumed_of_samples_is_said(samples: bytes, notes: list[str]) -> None:
    """Coordinates where a line depends on them; that a file is one message where it could be taken for many."""
    _, _, err = dry_run(stdin=samples)

    assert "stream s, topic t, partition 0, offset = line number from 0, time = 2000-01-01 + offset µs" in err
    assert ("a JSON document" in err) is bool(notes)
    assert all(words in err for words in notes)


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize(
    ("payload", "options", "said"),
    [
        ("csv", [], True),
        ("csv", ["--whole"], False),
        ("{format: csv, header: [d, a, u, ts]}", [], False),
    ],
)
def test_a_csv_read_line_by_line_gives_a_note(payload: str, options: list[str], said: bool) -> None:
    """A file of csv that is taken for payloads, a line each, would be headers without rows, and nothing wrong."""
    text = DOCUMENT.replace("topic: t}", f"topic: t, payload: {payload}}}").replace("points:", "for_each: '@'\npoints:")
    Path("env.yaml").write_text(text, "utf-8")

    _, _, err = dry_run(*options, stdin=b"d,a,u,ts\nd1,1,2,3\n")

    assert ("use --whole to read the file as one payload" in err) is said


@pytest.mark.usefixtures("mapping")
def test_a_limit_of_a_file_that_is_one_message_says_that_it_counts_messages() -> None:
    """The rows of the one message are all rendered, and a note says why."""
    text = DOCUMENT.replace("topic: t}", "topic: t, payload: csv}").replace("points:", "for_each: '@'\npoints:")
    Path("env.yaml").write_text(text, "utf-8")
    rows = b"d,a,u,ts\n" + b"d1,1,2,3\n" * 3

    _, _, whole = dry_run("--whole", "--limit", "2", stdin=rows)
    _, _, lines = dry_run("--limit", "2", stdin=rows)

    assert "--limit counts messages, and --whole makes one message of the file" in whole
    assert "messages          1" in whole
    assert "--limit counts messages" not in lines and "messages          2" in lines


@pytest.mark.usefixtures("mapping")
def test_binary_payloads_ask_for_envelopes() -> None:
    """As usage, before anything is read."""
    Path("env.yaml").write_text(DOCUMENT.replace("topic: t}", "topic: t, payload: msgpack}"), "utf-8")

    code, out, err = dry_run()

    assert (code, out) == (2, "")
    assert "--envelope" in err


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["m", "m,t=a", "n\\ x", "n\\,x,t=a"]),
            st.integers(0, 3),
            st.lists(st.sampled_from(["f", "g", 'h"', "i\\,f"]), min_size=1, unique=True),
        ),
        max_size=12,
    )
)
def test_series_and_collisions_are_counted_by_the_identity_of_points(points: list[tuple[str, int, list[str]]]) -> None:
    """A series is measurement and tags; two messages collide where series and time are the same, and a field."""
    tally = Tally()
    writers: dict[tuple[str, int, str], str] = {}
    collisions = []
    for number, (series, time, names) in enumerate(points):
        sample = f"sample {number}"
        fields = ",".join(f'{name}="f={number},\\"g=1"' for name in names)
        tally.add_message(sample, [f"{series} {fields} {time}"], [Failure(0, None, None, "IFX340", "/points", "")])
        others = [writers[series, time, name] for name in names if (series, time, name) in writers]
        collisions += [(others[0], sample)] if others else []
        writers.update(((series, time, name), sample) for name in names)

    assert tally.collisions == len(collisions)
    assert tally.first_collision == (collisions[0] if collisions else None)
    assert sum(map(tally.series.of, tally.points)) == tally.series.total == len({series for series, *_ in points})
    assert tally.failed == len(points)


@pytest.mark.parametrize(
    ("series", "measurement"), [("m", "m"), ("m,t=a", "m"), ("a\\,b,t=a", "a\\,b"), ("a\\ b", "a\\ b")]
)
def test_a_measurement_ends_at_the_first_comma_that_is_not_escaped(series: str, measurement: str) -> None:
    """As it is written, escapes kept."""
    assert measurement_of(series) == measurement


NAMES = st.text(alphabet='ab ,=\\é"', min_size=1, max_size=4).filter(lambda text: not text.endswith("\\"))


@given(st.lists(st.tuples(NAMES, st.dictionaries(NAMES, NAMES, max_size=3)), max_size=8))
def test_values_of_tags_are_counted_as_the_parser_reads_them(points: list[tuple[str, dict[str, str]]]) -> None:
    """Also where names have commas, equal signs, blanks and backslashes."""
    lines = []
    for measurement, tags in points:
        try:
            lines.append(Point(measurement, tags, {"f": 1.0}, 0).encode())
        except PointError:
            continue
    counted = SeriesCount(point_key(line)[0] for line in lines)
    values: dict[str, dict[str, set[str]]] = {}
    for line in lines:
        point, written = parse_line(line), measurement_of(point_key(line)[0])
        for key, value in point.tags.items():
            values.setdefault(written, {}).setdefault(key, set()).add(value)
    for written, tags in values.items():
        assert sorted(count for _, count in counted.tags(written)) == sorted(map(len, tags.values()))


def test_series_are_counted_beyond_a_limit_and_not_without_end() -> None:
    """So `limits.series` fails however large it is; values of tags are counted for the first series only."""
    lines = [f"m,a={n}" for n in range(9)]
    plain, limited = SeriesCount(lines, most=4), SeriesCount(lines, limit=6, most=4)

    assert (plain.total, plain.is_exact, limited.total, limited.is_exact) == (4, False, 7, False)
    assert limited.tags("m") == [("a", 4)]
    assert SeriesCount(lines, limit=6, most=20).is_exact
    assert limited.described("m") == "at least 7 series, by a (4)"


def test_series_are_counted_also_where_collisions_are_no_longer_looked_for() -> None:
    tally = Tally(series=SeriesCount(limit=8), most_keys=2)
    tally.add_message("sample 1", [f"m,a={n} f=1 {n}" for n in range(9)], [])

    assert (tally.series.total, tally.is_exact, tally.series.is_exact) == (9, False, True)


# --- eval ---


@pytest.mark.parametrize(
    ("arguments", "stdin", "out"),
    [
        (["a"], '{"a": 1}', "1\n"),
        (["a"], '{"a": 1}\n{"a": [1.0, null]}\n', "1\n[1.0,null]\n"),
        (["a"], '{\n"a":\n"x"}', '"x"\n'),
        (["a", "--raw"], '{"a": "x y"}', "x y\n"),
        (["@"], "12345678901234567890123", "12345678901234567890123\n"),
        (["@"], '"ünï"', '"ünï"\n'),
        (["add(`0.1`, `0.2`)"], "", "0.3\n"),
        (["root().a"], '{"a": 1}', "1\n"),
        (["[meta('topic'), header('k')]"], "{}", "[null,null]\n"),
        (
            ["[meta('topic'), header('k')]", "--envelope"],
            '{"payload": {}, "topic": "t", "headers": {"k": 2}}',
            '["t",2]\n',
        ),
        (["[0].v", "--payload", "csv", "--message"], '{"payload_text": "v,w\\n1,2"}', '"1"\n'),
        (["lookup('sites', d)", "--mapping", "env.yaml"], '{"d": "d1"}', '"berlin"\n'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("mapping")
def test_eval_prints_the_result_as_json(arguments: list[str], stdin: str, out: str) -> None:
    """One a document; compact if stdout is not a terminal."""
    outcome = iggyflux("eval", *arguments, stdin=stdin)

    assert (outcome.code, outcome.out, outcome.err) == (0, out, "")


def test_eval_points_inside_the_expression() -> None:
    """Line, column, caret, hint."""
    outcome = iggyflux("eval", "a.lenght(b)")

    assert outcome.code == 1
    assert "<expression>:1:" in outcome.err
    assert "^" in outcome.err


def test_eval_goes_on_after_a_document_that_fails() -> None:
    """And says which it was."""
    outcome = iggyflux("eval", "add(a, `1`)", stdin='{"a": 1}\n{"a": "x"}\n{"a": 3}\n')

    assert (outcome.code, outcome.out) == (1, "2\n4\n")
    assert outcome.err.startswith("<stdin>:2: error[IFX300]: ")


AVRO = "{format: avro, schema: kiln.avsc}"
KILN = {"type": "record", "name": "Kiln", "fields": [{"name": "if", "type": "long"}]}


def test_eval_takes_a_format_with_its_schema_as_infer_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema is a file of the folder; what is not valid is an error of the option."""
    monkeypatch.chdir(tmp_path)
    Path("kiln.avsc").write_text(json.dumps(KILN))
    Path("one").write_bytes(b"\x0e")

    assert iggyflux("eval", '"if"', "one", "--whole", "--payload", AVRO).out == "7\n"
    for payload, words in (
        ("protobuf", "a format with a schema is an object: {format: protobuf, descriptor: FILE, message: TYPE}"),
        ("jsno", "did you mean `json`?"),
        ("{format: avro, schema: none.avsc}", "cannot read 'none.avsc'"),
    ):
        outcome = iggyflux("eval", "@", "one", "--whole", "--payload", payload)
        assert (outcome.code, words in outcome.err, outcome.out) == (1, True, ""), outcome.err


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["eval", "dry-run"])
def test_json_for_a_format_in_bytes_is_told_where_json_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, whole: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tree.json").write_text('{"if": 7}\n')
    Path("kiln.avsc").write_text(json.dumps(KILN))
    Path("kiln.yaml").write_text(
        f"{{iggyflux: 1, kind: writer, from: {{stream: s, topic: t, payload: {AVRO}}}, points: {{measurement: "
        """{const: m}, fields: {f: '"if"'}}, examples: [{message: {if: 7}, points: ["m f=7.0 946684800000000000"]}]}"""
    )
    arguments = {"eval": ["@", "tree.json", "--mapping", "kiln.yaml"], "dry-run": ["kiln.yaml", "tree.json"]}[name]

    outcome = iggyflux(name, *arguments, *(["--whole"] if whole else []))

    assert outcome.code != 0
    assert "the `message` of an example" in outcome.err
    assert iggyflux("test", "kiln.yaml").code == 0  # it is one there


# --- explain ---


@pytest.mark.usefixtures("mapping")
def test_explain_lists_what_is_read_and_what_identifies_a_point() -> None:
    """Paths of the payload, coordinates, types, identity, and the code."""
    out = iggyflux("explain", "env.yaml", "--precision", "ms").out

    for words in (
        "    ts\n",
        "of the message: topic",
        "unsigned  u",
        "unix_ms   ts",
        "its measurement, the tags d, site, topic, and its time to the millisecond",
        "code (dialect v2, precision ms)",
        "def render(",
    ):
        assert words in out


def test_explain_says_which_fields_leave_bad_values_out(tmp_path: Path) -> None:
    """As the mapping says it, of all fields or of one."""
    file = tmp_path / "silo.yaml"
    fields = "{fill: {expr: fill, cast: true}, lid: {expr: lid, on_bad_value: fail}, 'x_*': {expr: more, cast: true}}"
    file.write_text(
        "{iggyflux: 1, kind: writer, from: {stream: s, topic: t, on_bad_value: omit}, "
        f"points: {{measurement: {{const: silo}}, fields: {fields}}}}}"
    )
    out = iggyflux("explain", str(file)).out

    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith(("  field ", "  fields "))}
    assert {name: "bad values left out" in row for name, row in rows.items()} == {
        "fill": True,
        "lid": False,
        "x_*": True,
    }
    assert "cast, bad values left out" in rows["fill"]


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize(
    ("server", "options", "plan"),
    [
        ("flavor: v1, precision: s", [], ("v1", "s")),
        ("flavor: v1, precision: s", ["--dialect", "v3", "--precision", "ms"], ("v3", "ms")),
        ("flavor: v3", [], ("v3", "ns")),
        ("precision: ms", [], ("v2", "ms")),
    ],
)
def test_explain_shows_the_plan_of_a_run(
    tmp_path: Path, server: str, options: list[str], plan: tuple[str, str]
) -> None:
    """With its identity, which dead letters name."""
    pipeline = tmp_path / "pipeline.yaml"
    keys = f"influxdb: {{url: 'http://127.0.0.1:1', database: d, {server}}}"
    pipeline.write_text(f"iggyflux: 1\n{keys}\ntags: {{hall: h1}}\nrun: [{{mapping: env.yaml, from: 'log:x'}}]\n")
    mapping = load_mapping(tmp_path / "env.yaml")
    assert isinstance(mapping, WriterMapping)
    identity = mapping.identity(dialect=plan[0], precision=plan[1], tags={"hall": "h1"})

    out = iggyflux("explain", str(tmp_path / "env.yaml"), "--pipeline", str(pipeline), *options).out

    assert f"plan {identity}: dialect {plan[0]}, precision {plan[1]}, the tags of {pipeline}" in out


@pytest.mark.usefixtures("mapping")
def test_the_source_of_explain_is_python_and_nothing_else() -> None:
    """It compiles, and depends on dialect and precision."""
    sources = {
        option: iggyflux("explain", "env.yaml", "--source", *option.split()).out for option in ("", "--precision s")
    }

    for source in sources.values():
        compile(source, "<plan>", "exec")
    assert len(set(sources.values())) == 2
