"""`iggyflux import`: what becomes of configurations of other tools.  Each folder of cases/importing is one.

In a folder: the configuration, named like its format; perhaps `samples`, one payload; perhaps `expected.lp`, the lines
that the other tool writes of it (made by running Telegraf); and what comes out, which `--update-cases` rewrites.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.authoring.examples import run_examples
from iggyflux.authoring.inference.write import toml_value
from iggyflux.documents import join_pointer, read_document
from iggyflux.errors import DocumentError, PipelineError
from iggyflux.importing import FORMATS, Imported, Options, Verdict, convert
from iggyflux.importing.telegraf.formats import PARSERS
from iggyflux.importing.telegraf.outputs import FLAVORS
from iggyflux.importing.telegraf.processors import PROCESSORS
from iggyflux.importing.telegraf.times import time_of
from iggyflux.lineprotocol import Point, parse_lines
from iggyflux.mapping import load_mapping, parse_mapping
from iggyflux.pipeline import load_pipeline, parse_pipeline
from iggyflux.records import Message, Row
from iggyflux.runner.open import open_routes
from iggyflux.timestamps import parse_pattern

CASES = Path(__file__).parent / "cases" / "importing"
FOLDERS = sorted(path for path in CASES.iterdir() if path.is_dir())
EVERYTHING = {
    "INFLUX_TOKEN": "x",
    "INFLUX_PASSWORD": "x",
    "INFLUX_PASSWORD_2": "x",
    "INFLUX_USERNAME": "x",
    "INFLUX_HEADER_X_TENANT": "x",
}
OTHERS = {"SHIFT_NAME": "late", "FARM_TOKEN": "x"}


def configuration(folder: Path) -> tuple[str, Path]:
    """The format and the file of a case."""
    (file,) = (path for path in folder.iterdir() if path.stem in FORMATS and not path.name.startswith("written"))
    return file.stem, file


def samples(folder: Path) -> list[Message]:
    file = folder / "samples"
    return [Message(file.read_bytes(), "my-stream", "my-topic", timestamp_us=1_000_000)] if file.exists() else []


def converted(folder: Path) -> Imported:
    form, file = configuration(folder)
    return convert(form, file.read_bytes(), file=file.name, options=Options(samples=samples(folder)))


by_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


@by_folder
def test_a_configuration_becomes_these_documents(folder: Path, update_cases: bool) -> None:
    """The documents and the report are those of the case."""
    made = converted(folder)
    _, file = configuration(folder)
    actual = {"report.txt": "\n".join(made.report.text(file.name)) + "\n"} | made.files
    written = folder / "written"
    if update_cases:
        written.mkdir(exist_ok=True)
        for old in written.iterdir():
            old.unlink()
        for name, text in actual.items():
            (written / name).write_text(text, "utf-8")

    assert {path.name: path.read_text("utf-8") for path in written.iterdir()} == actual


@by_folder
def test_the_documents_validate_and_their_examples_pass(folder: Path) -> None:
    """`iggyflux validate` and `test` find no problem in what is written."""
    written = folder / "written"
    pipeline = load_pipeline(written / "pipeline.yaml", environ=EVERYTHING | OTHERS)
    mappings = [path for path in written.glob("*.yaml") if path.name != "pipeline.yaml"]

    open_routes(pipeline)
    assert {route.mapping.name for route in pipeline.routes} == {path.name for path in mappings}
    for path in mappings:
        mapping = load_mapping(path)
        assert mapping.examples
        assert [result.differences for result in run_examples(mapping) if not result.passed] == []


@pytest.mark.parametrize("folder", [f for f in FOLDERS if (f / "expected.lp").exists()], ids=lambda path: path.name)
def test_the_mapping_writes_what_the_other_tool_writes(folder: Path) -> None:
    """The lines are equal, but for the time where the other tool takes its own clock."""
    wanted = parse_lines((folder / "expected.lp").read_bytes())
    made = []
    for name, text in converted(folder).files.items():
        if name != "pipeline.yaml":
            rendered = parse_mapping(text, format="yaml", name="m").plan().render(samples(folder))
            assert rendered.failures == []
            made += parse_lines("\n".join(rendered.lines))
    has_time = "timestamp: {expr" in "".join(converted(folder).files.values())

    assert Counter(plain(each, has_time) for each in made) == Counter(plain(each, has_time) for each in wanted)


def plain(point: Point, has_time: bool) -> str:
    """A point without the nanoseconds below a microsecond, which `spread` adds, and without a time of the clock."""
    time = (point.timestamp_ns or 0) // 1000 * 1000
    return Point(point.measurement, point.tags, point.fields, time if has_time else 0).encode()


def leaves(tree: Any, pointer: str = "") -> Iterator[str]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, join_pointer(pointer, key))
    elif isinstance(tree, list) and any(isinstance(each, dict | list) for each in tree):
        for number, value in enumerate(tree):
            yield from leaves(value, join_pointer(pointer, number))
    else:
        yield pointer


TOML_FOLDERS = [folder for folder in FOLDERS if configuration(folder)[1].suffix == ".toml"]


@pytest.mark.parametrize("folder", TOML_FOLDERS, ids=lambda path: path.name)
def test_each_setting_has_a_line_in_the_report(folder: Path) -> None:
    """Each leaf of the configuration is named, or something around it is."""
    named = {line.construct for line in converted(folder).report.lines}
    tree = tomllib.loads(configuration(folder)[1].read_text("utf-8"))
    for pointer in leaves(tree):
        words = [word for word in pointer.split("/")[1:] if not word.isdigit()]

        assert any(".".join(words[:count]) in named for count in range(1, len(words) + 1)), pointer


@by_folder
def test_no_secret_is_copied(folder: Path) -> None:
    """What is a secret in the configuration is neither in a document nor in the report."""
    _, file = configuration(folder)
    canaries = re.findall(r"canary[a-z-]*", file.read_text("utf-8"))
    made = converted(folder)
    shown = "\n".join([*made.files.values(), *made.report.text(file.name)])

    assert [canary for canary in canaries if canary in shown] == []


SECRETS: dict[str, str] = {
    "iggy-influxdb-sink": "[[streams]]\n[plugin_config]\nurl = 'http://x:1'\ntoken = '{}'\norg = '{}'\n",
    "iggy-influxdb-source": "[[streams]]\n[plugin_config]\nurl = 'http://x:1'\ntoken = '{}'\norg = '{}'\n",
    "mqtt2influxdb": "influxdb: {host: x, username: u, password: '{}', database: '{}'}\n"
    "points: [{measurement: m, topic: '#', fields: {v: $.payload}}]\n",
    "kcql": "connect.influx.url=http://x:1\nconnect.influx.username=u\nconnect.influx.password={}\nconnect.influx.db={}\n"
    "connect.influx.kcql=INSERT INTO m SELECT * FROM t\n",
    "telegraf": "[[inputs.file]]\ndata_format = 'influx'\n[[outputs.influxdb_v2]]\nurls = ['http://x:1']\n"
    "token = '{}'\norganization = '{}'\n",
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "secret", ["$canaryPass", "$CANARY_1", "${canaryPass}", "${canary:-x}", "@{s:canary}", "x$canary"]
)
def test_a_secret_that_looks_like_a_variable_is_one_only_where_the_tool_has_variables(form: str, secret: str) -> None:
    """Only Telegraf replaces names in its file; what it leaves alone if no variable is set may be the secret itself."""
    text = SECRETS[form].replace("{}", secret, 1).replace("{}", "plain${db}")
    made = convert(form, text)
    pipeline = made.files["pipeline.yaml"]
    shown = "\n".join([*made.files.values(), *made.report.text("x")])
    is_variable = form == "telegraf" and secret in ("$CANARY_1", "${canaryPass}")

    assert ("canary" in shown.lower()) == is_variable
    assert re.search(r"(?:token|password): '\$\{" + ("canary" if is_variable else "INFLUX_"), pipeline, re.IGNORECASE)
    assert ("'plain$${db}'" if form != "telegraf" else "'plain${db}'") in pipeline


@by_folder
@pytest.mark.parametrize("damage", ["=", "\n[[[", '\nx = "', "\n\x00"])
def test_a_damaged_file_shows_no_secret(folder: Path, damage: str, tmp_path: Path) -> None:
    """Its problem has the place, and nothing that may be a secret."""
    form, file = configuration(folder)
    text = file.read_text("utf-8")
    for match in re.finditer("canary[a-z-]*", text):
        broken = tmp_path / file.name
        broken.write_text(text[: match.end()] + damage + text[match.end() :], "utf-8")
        outcome = iggyflux("import", form, broken, "-o", tmp_path / "out", "--force")

        assert match[0] not in outcome.out + outcome.err


# --- several outputs ---

SHED = """
[[inputs.file]]
data_format = "value"
data_type = "float"
name_override = "shed"
[inputs.file.tags]
dev_id = "d1"
yard = "south"
[[outputs.influxdb_v2]]
urls = ["http://one:1"]
token = "t"
"""
TWO = '[[outputs.influxdb_v2]]\nurls = ["http://two:2"]\ntoken = "t"\n'


def routes_of(made: Imported) -> dict[str, Any]:
    """The mapping of each address that the pipeline writes to."""
    tree: Any = read_document(made.files["pipeline.yaml"]).tree
    return {route["influxdb"]["url"]: read_document(made.files[route["mapping"]]).tree for route in tree["run"]}


def test_what_one_output_filters_stays_in_the_others() -> None:
    """Each output has mappings of its own where it changes something; the names of routes and consumers differ."""
    made = convert("telegraf", SHED + TWO + 'tagexclude = ["dev_id"]\n')
    routes = routes_of(made)
    tags = {url: set(tree["points"]["tags"]) for url, tree in routes.items()}
    run: Any = read_document(made.files["pipeline.yaml"]).tree

    assert tags == {"http://one:1": {"dev_id", "yard"}, "http://two:2": {"yard"}}
    assert (
        len({route["name"] for route in run["run"]}) == len({route["consumer"]["group"] for route in run["run"]}) == 2
    )


@pytest.mark.parametrize(
    "drops", ['namepass = ["other"]', 'namedrop = ["sh*"]', '[outputs.influxdb_v2.tagpass]\nx = ["y"]']
)
def test_an_output_that_drops_all_has_no_route(drops: str) -> None:
    """Nothing goes where the filters of an output let nothing through, be it the only output or not."""
    both, alone = convert("telegraf", SHED + TWO + drops), convert("telegraf", SHED + drops)

    assert set(routes_of(both)) == {"http://one:1"}
    assert alone.files == {}
    for made in (both, alone):
        assert any("drop every metric" in line.became for line in made.report.lines)


def test_an_output_filters_tags_of_all_metrics_too() -> None:
    """Tags of `[global_tags]` are left out, and choose points, as any others; a variable no mapping has."""
    tags = "[global_tags]\nregion = 'n'\nshift = '$SHIFT'\n"
    excluded = convert("telegraf", tags + SHED + TWO + 'tagexclude = ["region", "shift"]\n')
    chosen = convert("telegraf", tags + SHED + "[outputs.influxdb_v2.tagpass]\nregion = ['n*']\n")
    written = {url: tree["points"]["tags"].get("region") for url, tree in routes_of(excluded).items()}
    pipeline: Any = read_document(excluded.files["pipeline.yaml"]).tree
    not_taken = [line.became for line in excluded.report.lines if line.verdict is Verdict.NOT_TAKEN]

    assert written == {"http://one:1": {"const": "n"}, "http://two:2": None}
    assert pipeline["tags"] == {"shift": "${SHIFT}"}
    assert len([became for became in not_taken if "shift" in became]) == 1
    assert "shed.yaml" in chosen.files


def test_outputs_that_change_nothing_share_a_mapping() -> None:
    """A mapping is written once for all outputs that get the same points."""
    made = convert("telegraf", SHED + TWO + 'tagexclude = ["none"]\n')

    assert sorted(made.files) == ["pipeline.yaml", "shed.yaml"]
    assert len(routes_of(made)) == 2


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize(
    ("output", "key", "chooses"),
    [
        ("influxdb", "database", "database"),
        ("influxdb_v2", "bucket", "bucket"),
        ("influxdb_v3", "database", "database"),
    ],
)
def test_a_point_without_the_tag_goes_where_the_output_names(
    output: str, key: str, chooses: str, variable: bool
) -> None:
    """A mapping has no variables, so that a point fails then; the report says which of the two it is."""
    name = "$ORCHARD" if variable else "it's spare"
    made = convert(
        "telegraf",
        f"""[global_tags]\nregion = "n"\n[agent]\nhostname = "h"
        [[inputs.file]]\ndata_format = "json"\ntag_keys = ["yard"]
        [[outputs.{output}]]\nurls = ["http://a:1"]\n{key} = "{name}"\n{chooses}_tag = "yard" """,
    )
    plan = parse_mapping(made.files["file.yaml"], format="yaml", name="m").plan()
    rendered = plan.render([*messages_of({"yard": "south", "kg": 2}), *messages_of({"kg": 3})])
    said = {line.construct: line.became for line in made.report.lines}

    assert rendered.buckets == (["south"] if variable else ["south", name])
    assert len(rendered.failures) == variable
    assert ("without the tag fails" if variable else f"goes to `{name}`") in said[f"outputs.{output}.{chooses}_tag"]
    assert "host=h" in rendered.lines[0]
    assert all("of all points" in said[key] for key in ("agent.hostname", "global_tags.region"))
    assert "tags:" not in made.files["pipeline.yaml"]


@pytest.mark.parametrize("has_token", [True, False])
def test_a_login_in_an_address_counts_where_there_is_no_token(has_token: bool) -> None:
    """Telegraf sends the token then; the report asks for no variables that the pipeline has not."""
    form = '[[outputs.influxdb_v2]]\nurls = ["https://canary:canary@a:1"]\norganization = "o"\nbucket = "b"\n'
    made = convert("telegraf", INPUT + form + 'token = "canary"\n' * has_token)
    said = "\n".join(line.became for line in made.report.lines)

    assert ("${INFLUX_PASSWORD}" in made.files["pipeline.yaml"], "variables of `username`" in said) == (
        not has_token,
        not has_token,
    )
    assert any("requires a token" in line.became for line in made.report.lines) is not has_token
    assert "canary" not in said + made.files["pipeline.yaml"]


MEASUREMENTS = [
    ("json", 'json_name_key = "kind"', "json_name_key"),
    ("csv", 'csv_column_names = ["a", "kind"]\ncsv_measurement_column = "kind"', "csv_measurement_column"),
    (
        "json_v2",
        'json_v2 = [{measurement_name_path = "kind", field = [{path = "a"}]}]',
        "json_v2.measurement_name_path",
    ),
    ("json_v2", 'json_v2 = [{measurement_name_path = "#.[", field = [{path = "a"}]}]', "json_v2.measurement_name_path"),
    ("json_v2", 'json_v2 = [{measurement_name = "kind", field = [{path = "a"}]}]', "json_v2.measurement_name"),
    ("xml", 'xml = [{metric_name = "/kind", fields = {a = "/a"}}]', "xml.metric_name"),
    ("value", 'topic_parsing = [{topic = "x/+", measurement = "_/measurement"}]', "topic_parsing.measurement"),
]


@pytest.mark.parametrize(("form", "text", "key"), MEASUREMENTS)
def test_a_name_that_is_overridden_is_said_to_be(form: str, text: str, key: str) -> None:
    """`name_override` wins over everything that reads the measurement of a message, and has one line for each."""
    head = f'[[inputs.mqtt_consumer]]\ndata_format = "{form}"\n'
    alone, made = (convert("telegraf", head + name + text) for name in ("", 'name_override = "crate"\n'))
    (said,) = (line for line in made.report.lines if line.construct == f"inputs.mqtt_consumer.{key}")
    (without,) = (line for line in alone.report.lines if line.construct == f"inputs.mqtt_consumer.{key}")

    assert (said.verdict, said.became) == (Verdict.TAKEN, "nothing to do: `name_override` gives the measurement")
    assert "name_override" not in without.became
    assert "measurement: {const: crate}" in made.files["crate.yaml"]


# --- several connectors ---

SINKS = """
[[sinks]]
[sinks.plugin_config]
url = "http://one:1"
bucket = "a"
token = "canary-1"
precision = "ms"
[[sinks.streams]]
stream = "s"
topics = ["t"]
batch_length = 10
consumer_group = "g"
[[sinks]]
[sinks.plugin_config]
url = "http://me:canary@two:2"
bucket = "b"
precision = "ns"
[[sinks.streams]]
stream = "s"
topics = ["u"]
batch_length = 20
poll_interval = "7ms"
consumer_group = "h"
"""


@pytest.mark.parametrize("word", ["sink", "source"])
def test_each_connector_keeps_its_own_server(word: str) -> None:
    """Address, bucket, login and options are those of its own file; what all routes share is said not to be taken."""
    made = convert(f"iggy-influxdb-{word}", SINKS.replace("sinks", f"{word}s"))
    tree: Any = read_document(made.files["pipeline.yaml"]).tree
    first, second = (route["influxdb"] for route in tree["run"])

    assert (first["url"], first["bucket"], first["token"]) == ("http://one:1", "a", "${INFLUX_TOKEN}")
    assert (second["url"], second["bucket"], second["password"]) == ("http://two:2", "b", "${INFLUX_PASSWORD_2}")
    assert "token" not in second
    assert "influxdb" not in tree
    if word == "sink":
        assert (first["precision"], second["precision"]) == ("ms", "ns")
        assert [route["consumer"]["group"] for route in tree["run"]] == ["g", "h"]
    assert tree["iggy"]["batch_size"] == 10
    told = {line.construct: line.verdict for line in made.report.lines if line.number > 14}
    assert told[f"{word}s.streams.batch_length"] is told[f"{word}s.streams.poll_interval"] is Verdict.NOT_TAKEN


@pytest.mark.parametrize("named", ["", 'consumer_group = "ferry"\n'])
@pytest.mark.parametrize("key", ["", 'key = "dock"\n'])
def test_the_report_names_the_group_in_which_the_sink_reads(key: str, named: str) -> None:
    """Without a name the runtime of the connectors makes one of the connector's key."""
    text = f'{key}[[streams]]\nstream = "s"\ntopics = ["t"]\n{named}[plugin_config]\nurl = "http://x:1"\n'
    made = convert("iggy-influxdb-sink", text)
    (said,) = (line.became for line in made.report.lines if line.construct == "streams.consumer_group")
    (route,) = cast(Any, read_document(made.files["pipeline.yaml"]).tree)["run"]

    assert "goes on where the connector stopped; stop it before" in said
    assert route.get("consumer") == ({"group": "ferry"} if named else None)
    assert named or f"`iggy-connect-sink-{'dock' if key else 'KEY'}`" in said


@pytest.mark.parametrize("value", ["ms", "minutes", "2026-01-01T00:00:00Z", "yesterday"])
@pytest.mark.parametrize(("word", "key"), [("sink", "precision"), ("source", "initial_offset")])
def test_a_value_that_iggyflux_does_not_know_has_one_line_in_the_report(word: str, key: str, value: str) -> None:
    text = f'[[streams]]\nstream = "s"\ntopics = ["t"]\n[plugin_config]\nurl = "http://x:1"\n{key} = "{value}"\n'
    made = convert(f"iggy-influxdb-{word}", text)

    is_known = value in {"sink": ("ms",), "source": ("2026-01-01T00:00:00Z",)}[word]
    assert [line.verdict for line in made.report.lines if key in line.construct or "IFX" in line.became] == [
        Verdict.TAKEN if is_known else Verdict.NOT_TAKEN
    ]


BOOLEANS: list[tuple[Any, bool | None]] = [
    *[(text, True) for text in ("1", "t", "T", "TRUE", "true", "True", 1, 1.0, True)],
    *[(text, False) for text in ("0", "f", "F", "FALSE", "false", "False", 0, 0.0, False)],
    *[(text, None) for text in ("yes", "", " true", "s 2", 2, -1, 7.5, 1764500061)],
]


@pytest.mark.parametrize(("value", "expected"), BOOLEANS, ids=repr)
@pytest.mark.parametrize("table", ["field", "object"])
def test_what_telegraf_reads_as_no_boolean_is_none(value: Any, expected: bool | None, table: str) -> None:
    """It was false, whatever it was; a message with such a value fails, as in Telegraf."""
    settings = {"field": 'path = "open"\ntype = "bool"', "object": 'path = "@this"\nfields = {open = "bool"}'}[table]
    head = '[[inputs.file]]\ndata_format = "json_v2"\n[[inputs.file.json_v2]]\n'
    text = f"{head}[[inputs.file.json_v2.{table}]]\n{settings}"
    sample = Message(json.dumps({"open": value}).encode(), "s", "t", timestamp_us=1)
    made = convert("telegraf", text, options=Options(samples=[sample]))
    (mapping,) = (content for name, content in made.files.items() if name != "pipeline.yaml")
    rendered = parse_mapping(mapping, format="yaml", name="m").plan().render([sample])

    assert [line.split()[1] for line in rendered.lines] == (
        [] if expected is None else [f"open={str(expected).lower()}"]
    )
    assert len(rendered.failures) == (expected is None)


def json_v2(tables: str, *messages: Any) -> tuple[Imported, list[list[str]], list[Any]]:
    """The documents of a parser with these tables; tags and fields of each message, of which the first is a sample."""
    head = '[[inputs.file]]\ndata_format = "json_v2"\n[[inputs.file.json_v2]]\n'
    all_of = [Message(json.dumps(each).encode(), "s", "t", timestamp_us=1) for each in messages]
    made = convert(
        "telegraf",
        head + re.sub(r"\[\[(.*?)\]\]", r"[[inputs.file.json_v2.\1]]", tables),
        options=Options(samples=all_of[:1]),
    )
    (mapping,) = (content for name, content in made.files.items() if name != "pipeline.yaml")
    plan = parse_mapping(mapping, format="yaml", name="m").plan()
    rendered = [plan.render([each]) for each in all_of]
    lines = [[line.rpartition(" ")[0].removeprefix("file").lstrip(", ") for line in each.lines] for each in rendered]
    return made, lines, [each.failures for each in rendered]


@pytest.mark.parametrize("message", [{"cups": [], "load": 7}, {"load": 7}, {"cups": None, "load": 7}], ids=json.dumps)
@pytest.mark.parametrize("path", ["cups", "cups.#.n"])
def test_a_list_that_is_empty_in_another_message_costs_no_other_field(path: str, message: dict[str, Any]) -> None:
    sample = {"cups": [1, 2] if path == "cups" else [{"n": 1}, {"n": 2}], "load": 5}
    tables = (
        f'[[tag]]\npath = "load"\n[[field]]\npath = "load"\nrename = "kg"\n[[field]]\npath = "{path}"\nrename = "n"\n'
    )
    _, lines, failures = json_v2(tables, sample, message)

    assert lines == [["load=5 kg=5.0,n=1.0", "load=5 kg=5.0,n=2.0"], ["load=7 kg=7.0"]]
    assert failures == [[], []]


def test_of_two_lists_one_may_be_empty_in_another_message() -> None:
    tables = '[[field]]\npath = "cups"\n[[field]]\npath = "pots"\n'
    _, lines, _ = json_v2(tables, {"cups": [1], "pots": [2]}, {"cups": [], "pots": [4]}, {"cups": [3], "pots": []})

    assert lines == [["cups=1.0,pots=2.0"], ["pots=4.0"], ["cups=3.0"]]


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ('[[tag]]\npath = "n"\n[[field]]\npath = "n"\n', "n=7 n_field=7.0"),
        ('[[tag]]\npath = "n"\nrename = "k"\n[[object]]\npath = "o"\n', "k=7 k_field=1.0"),
        ('[[field]]\npath = "n"\nrename = "k"\n[[object]]\npath = "o"\ntags = ["k"]\n', "k=1 k_field=7.0"),
    ],
)
def test_a_field_with_the_name_of_a_tag_gets_another_one(tables: str, line: str) -> None:
    """InfluxDB takes both, and a query cannot tell them apart; the report names it."""
    made, lines, _ = json_v2(tables, {"n": 7, "o": {"k": 1}})

    assert line in lines[0]
    name = line.partition("=")[0]
    assert [each.verdict for each in made.report.lines if f"`{name}` becomes `{name}_field`" in each.became] == [
        Verdict.APPROXIMATED
    ]


@pytest.mark.parametrize("kind", ["tag", "field"])
def test_the_other_name_of_a_field_is_a_free_one(kind: str) -> None:
    tables = f'[[tag]]\npath = "n"\n[[field]]\npath = "n"\n[[{kind}]]\npath = "m"\nrename = "n_field"\n'
    made, lines, _ = json_v2(tables, {"n": 7, "m": 8})

    assert lines == [["n=7,n_field=8 n_field_field=7.0" if kind == "tag" else "n=7 n_field=8.0,n_field_field=7.0"]]
    assert "the field `n` becomes `n_field_field`" in "".join(each.became for each in made.report.lines)


def test_a_tag_of_messages_without_the_object_does_not_meet_its_fields() -> None:
    tables = '[[tag]]\npath = "name"\n[[field]]\npath = "n"\n[[object]]\npath = "all"\n'
    _, lines, _ = json_v2(tables, {"all": [{"name": "a", "n": 1}]}, {"name": "b", "n": 2})

    assert lines == [['n=1.0,name="a"'], ["name=b n=2.0"]]


NOT_TAKEN = [
    (
        'data_format = "json"\n[[processors.defaults]]\n[processors.defaults.fields]\nopen = true',
        "processors.defaults.fields.open",
        Verdict.NOT_TAKEN,
    ),
    (
        'data_format = "xml"\n[[inputs.file.xpath]]\nmetric_selection = "/pier/*"\nfields = {beds = "number(beds)"}',
        "inputs.file.xpath.metric_selection",
        Verdict.NOT_TAKEN,
    ),
    ('data_format = "grok"\ngrok_patterns = ["%{WORD:crane} %{NUMBER:load:float}"]', "grok", Verdict.APPROXIMATED),
    ('data_format = "csv"\ncsv_skip_rows = 2\ncsv_header_row_count = 1', "inputs.file.csv_skip_rows", Verdict.TAKEN),
]


@pytest.mark.parametrize(("text", "construct", "verdict"), NOT_TAKEN, ids=[row[1] for row in NOT_TAKEN])
def test_what_telegraf_does_otherwise_has_one_line_that_says_so(text: str, construct: str, verdict: Verdict) -> None:
    options = Options(samples=[Message(b"hoist 12\nboom 7\n", "s", "t")])
    made = convert("telegraf", f"[[inputs.file]]\n{text}", options=options)

    assert [line.verdict for line in made.report.lines if line.construct == construct] == [verdict]


@pytest.mark.parametrize(("value", "verdict"), [("5", Verdict.APPROXIMATED), ("5.5", Verdict.TAKEN)])
def test_an_integer_as_the_default_of_numbers_is_a_float_and_the_report_says_so(value: str, verdict: Verdict) -> None:
    defaults = f"[[processors.defaults]]\n[processors.defaults.fields]\nlevel = {value}\n"
    made = convert("telegraf", f"[[inputs.file]]\ndata_format = 'json'\n{defaults}")

    assert next(line.verdict for line in made.report.lines if line.construct.endswith("fields.level")) is verdict


ROWS_OF_THE_SOURCE = {
    1_700_000_000_000_000_000: "2023-11-14T22:13:20",
    1_700_000_000_500_000_000: "2023-11-14T22:13:20.500",
    1_700_000_001_120_000_000: "2023-11-14T22:13:21.120",
    1_700_000_001_123_456_000: "2023-11-14T22:13:21.123456",
    1_700_000_002_123_456_789: "2023-11-14T22:13:22.123456789",
}
"""Times, and what Iggy's source had in its messages, of InfluxDB 3.6."""


@pytest.mark.parametrize("has_metadata", [True, False])
def test_messages_of_sql_are_those_of_the_source_but_for_zeros_at_the_end(has_metadata: bool) -> None:
    text = (CASES / "iggy-source-sql/iggy-influxdb-source.toml").read_text("utf-8")
    made = convert("iggy-influxdb-source", text + f"include_metadata = {str(has_metadata).lower()}\n")
    plan = parse_mapping(made.files["orchard-history.yaml"], format="yaml", name="m").plan()
    for time, shown in ROWS_OF_THE_SOURCE.items():
        (message,) = plan.render([Row({"time": time, "row": "B 1", "kilos": 2**60 + 1, "note": None})]).messages
        whole, _, fraction = shown.partition(".")
        trimmed = f"{whole}.{fraction.rstrip('0')}".rstrip(".")
        expected = {"time": trimmed} if has_metadata else {}
        assert json.loads(message.payload) == {**expected, "row": "B 1", "kilos": 2**60 + 1, "note": None}


@pytest.mark.parametrize("has_metadata", [True, False])
def test_a_row_of_flux_has_the_columns_that_the_source_sends(has_metadata: bool) -> None:
    """Without metadata these are the time and the value; with them, all that readers have."""
    text = (CASES / "iggy-source-flux/iggy-influxdb-source.toml").read_text("utf-8")
    made = convert("iggy-influxdb-source", text + f"include_metadata = {str(has_metadata).lower()}\n")
    plan = parse_mapping(made.files["orchard-history.yaml"], format="yaml", name="m").plan()
    columns = {"time": 1_700_000_000_500_000_000, "_field": "kilos", "_value": 2.5, "row": "B 1"}
    (message,) = plan.render([Row(columns, "picks")]).messages
    own = {"_time": "2023-11-14T22:13:20.5Z", "_value": 2.5}
    more = {"_measurement": "picks", "_field": "kilos", "row": "B 1"} if has_metadata else {}

    assert json.loads(message.payload) == {
        "measurement": "picks",
        "field": "kilos",
        "timestamp": own["_time"],
        "value": 2.5,
        "row": own | more,
    }


@pytest.mark.parametrize(
    ("language", "value", "payload"),
    [
        ("flux", '{"b": [1, 2.5]}', {"b": [1, 2.5]}),
        ("flux", "not JSON", None),
        ("flux", 2**60, 2**60),
        ("flux", 2.5, 2.5),
        ("flux", False, False),
        ("sql", '{"b": [1, 2.5]}', '{"b": [1, 2.5]}'),
        ("sql", 'say "hi"', 'say "hi"'),
        ("sql", 2**60, 2**60),
        ("sql", False, False),
    ],
)
def test_a_payload_column_is_the_payload_of_the_source(language: str, value: Any, payload: Any) -> None:
    """As the running connector sends it: of Flux it reads the text as JSON, of SQL it writes the value as JSON."""
    text = (CASES / f"iggy-source-{language}/iggy-influxdb-source.toml").read_text("utf-8")
    made = convert("iggy-influxdb-source", text + 'payload_column = "kilos"\n')
    plan = parse_mapping(made.files["orchard-history.yaml"], format="yaml", name="m").plan()

    rendered = plan.render([Row({"time": 1_700_000_000_500_000_000, "kilos": value}, "picks")])

    assert [json.loads(message.payload) for message in rendered.messages] == ([] if payload is None else [payload])
    assert len(rendered.failures) == (payload is None)


@pytest.mark.parametrize("schema", ["json", "text", "raw", "flatbuffer"])
@pytest.mark.parametrize("stored", ["json", "text", "base64"])
def test_the_report_names_the_payload_that_the_mapping_reads(schema: str, stored: str) -> None:
    """The format of `payload_format` may need another payload than that of `schema`."""
    text = SECRETS["iggy-influxdb-sink"].replace("[[streams]]", f'[[streams]]\nschema = "{schema}"')
    made = convert("iggy-influxdb-sink", text + f'payload_format = "{stored}"\n')
    (mapping,) = (content for name, content in made.files.items() if name != "pipeline.yaml")
    (said,) = (line.became for line in made.report.lines if line.construct == "streams.schema")

    assert re.findall(r"payload: (\w+)", said) == re.findall(r"^  payload: (\w+)", mapping, re.MULTILINE)


# --- times of Go ---

GO_TIMES = (CASES.parent / "go-times.tsv").read_text("utf-8").splitlines()
"""Layouts, a time in each, and its nanoseconds: what Go's `time.Format` and `time.Parse` give."""


def test_a_layout_of_go_gives_the_time_that_go_reads_or_none() -> None:
    """No layout is read in another way; those that name one instant, in parts that a pattern has, are taken."""
    wrong = []
    taken = 0
    for layout, text, wanted in (line.split("\t") for line in GO_TIMES):
        made = time_of("t", layout, "")
        if made is None:
            continue
        taken += 1
        if made["format"] == "rfc3339":
            continue
        actual = parse_pattern(text, made["format"], made.get("timezone"))
        wrong += [] if actual == int(wanted) else [(layout, made["format"], text, wanted, actual)]

    assert wrong == []
    assert taken > len(GO_TIMES) // 4


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("2006-01-02 15:04:05-07", None),
        ("2006-01-02 15:04:05Z07", None),
        ("2006__2 15:04", None),
        ("2006-01-02 3:04 pm", None),
        ("2006-002", "%Y-%j"),
        ("02_2006_01", "%d_%Y_%m"),
        ("2006-01-02 15:04:05 -07:00:00", "%Y-%m-%d %H:%M:%S %z"),
        ("2006-01", None),
    ],
)
def test_a_layout_of_go_becomes_this_pattern(layout: str, pattern: str | None) -> None:
    """A part that no directive reads in the same way makes the layout one that is not taken."""
    made = time_of("t", layout, "")

    assert (made and made["format"]) == pattern


TIMES: dict[str, str] = {
    "json": 'json_time_key = "at"\njson_time_format = "{}"',
    "csv": 'csv_column_names = ["at", "v"]\ncsv_timestamp_column = "at"\ncsv_timestamp_format = "{}"',
    "grok": """grok_patterns = ['%{NUMBER:v:float} %{GREEDYDATA:at:ts-"{}"}']""",
    "json_v2": '[[inputs.file.json_v2]]\ntimestamp_path = "at"\ntimestamp_format = "{}"\n'
    '[[inputs.file.json_v2.field]]\npath = "v"\ntype = "float"',
    "xpath_json": '[[inputs.file.xpath_json]]\ntimestamp = "at"\ntimestamp_format = "{}"\n'
    '[inputs.file.xpath_json.fields]\nv = "number(v)"',
}


@pytest.mark.parametrize("form", TIMES)
def test_a_time_that_is_not_taken_is_reported(form: str) -> None:
    """Every format of payloads says that it left a layout out, and takes the time of the message."""

    def made(layout: str) -> tuple[str, str]:
        text = f'[[inputs.file]]\ndata_format = "{form}"\n' + TIMES[form].replace("{}", layout)
        result = convert("telegraf", text)
        lines = [line.became for line in result.report.lines if line.verdict is Verdict.NOT_TAKEN]
        return result.files["file.yaml"], "\n".join(lines)

    document, report = made("2006-01-02 15:04:05-07")
    taken, quiet = made("2006-01-02 15:04:05-0700")

    assert ("timestamp:" in document, "no format of ours" in report) == (False, True)
    assert ("timestamp:" in taken, "no format of ours" in quiet) == (True, False)


# --- hostile files ---


def is_tree(folder: Path) -> bool:
    return FORMATS[configuration(folder)[0]].form != "text"


NAMES = st.sampled_from(
    ["", "a", "time", "_field", "a.b", "a b", "\\", "'", '"', "`", "${X}", "$X", "é\u202e", "*", "#", "x" * 300]
)
ODD = st.one_of(
    NAMES,
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.lists(NAMES, max_size=3),
    st.just({}),
    st.dictionaries(NAMES.filter(bool), NAMES, max_size=2),
    st.sampled_from(
        [
            "#.a.#",
            "a.#(b==1)#",
            "@this",
            "a.*",
            "{a,b}",
            "//x",
            "../..",
            "%{WORD:a",
            "2006",
            "+/#/_",
            "(",
            "[[",
            "99999d",
        ]
    ),
)


def changed(data: st.DataObject, tree: Any) -> Any:
    """A configuration with some values replaced, some keys renamed and some left out."""
    if isinstance(tree, dict):
        made = {}
        for key, value in tree.items():
            match data.draw(st.integers(0, 24)):
                case 0:
                    continue
                case 1:
                    made[data.draw(NAMES)] = value
                case 2:
                    made[key] = data.draw(ODD)
                case _:
                    made[key] = changed(data, value)
        return made
    if isinstance(tree, list):
        return [changed(data, each) for each in tree]
    return data.draw(ODD) if data.draw(st.integers(0, 9)) == 0 else tree


def as_toml(tree: dict[str, Any]) -> str:
    return "".join(f"{toml_value(str(key))} = {toml_value(value)}\n" for key, value in tree.items())


@settings(max_examples=300)
@given(folder=st.sampled_from([folder for folder in FOLDERS if is_tree(folder)]), data=st.data())
def test_any_configuration_gives_valid_documents_or_a_problem(folder: Path, data: st.DataObject) -> None:
    """Whatever a file has, there is no other exception, and what is written validates."""
    form, file = configuration(folder)
    if file.suffix == ".toml":
        text = as_toml(changed(data, tomllib.loads(file.read_text("utf-8"))))
    else:
        text = json.dumps(changed(data, read_document(file.read_text("utf-8")).tree))
    check(form, text, samples(folder))


PIECES = st.sampled_from(
    [
        "INSERT",
        "INTO",
        "SELECT",
        "FROM",
        "*",
        ",",
        "(",
        ")",
        "=",
        ";",
        "`",
        "'",
        "\n",
        "WITHTAG",
        "AS",
        "é",
        ".",
        "{",
        "\\",
    ]
)


@settings(max_examples=90)
@given(folder=st.sampled_from([folder for folder in FOLDERS if not is_tree(folder)]), data=st.data())
def test_any_text_gives_valid_documents_or_a_problem(folder: Path, data: st.DataObject) -> None:
    """Whatever a file has, there is no other exception, and what is written validates."""
    form, file = configuration(folder)
    text = file.read_text("utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(PIECES | NAMES) + text[at + data.draw(st.integers(0, 12)) :]
    check(form, text, samples(folder))


def problems_of(pipeline: str) -> set[str]:
    try:
        parse_pipeline(pipeline, format="yaml", environ={})
    except PipelineError as error:
        return {problem.code for problem in error.problems}
    return set()


def check(form: str, text: str, messages: list[Message]) -> None:
    try:
        made = convert(form, text, file="x", options=Options(samples=messages))
    except DocumentError:
        return
    for name, written in made.files.items():
        if name != "pipeline.yaml":
            mapping = parse_mapping(written, format="yaml", name="m")
            assert [each.differences for each in run_examples(mapping) if not each.passed] == []
    if "pipeline.yaml" in made.files:
        # Its mappings are in no folder here, and its variables are not set.
        assert problems_of(made.files["pipeline.yaml"]) <= {"IFX802", "IFX808"}
    assert bool(made.files) == ("pipeline.yaml" in made.files)


INPUT = """
[[inputs.mqtt_consumer]]
  name_override = "boat"
  data_format = "json_v2"
  topic_tag = ""
  [[inputs.mqtt_consumer.topic_parsing]]
    topic = "fleet/+/+"
    tags = "_/fleet/_"
  [[inputs.mqtt_consumer.json_v2]]
    [[inputs.mqtt_consumer.json_v2.tag]]
      path = "fw"
      optional = true
    [[inputs.mqtt_consumer.json_v2.field]]
      path = "state"
      optional = true
    [[inputs.mqtt_consumer.json_v2.field]]
      path = "strokes"
      type = "int"
      optional = true
    [[inputs.mqtt_consumer.json_v2.field]]
      path = "knots"
"""
REGEX = """
[[processors.regex]]
  [[processors.regex.tags]]
    key = "{}"
    pattern = "^(.)"
    replacement = "{}"
    {}
"""
ENUM = """
[[processors.enum]]
  [[processors.enum.mapping]]
    {} = ["{}"]
    default = {}
    [processors.enum.mapping.value_mappings]
      out = {}
"""


@pytest.mark.parametrize(
    ("processors", "message", "topic", "line"),
    [
        (REGEX.format("fleet", "x$1", ""), {}, "other", "boat knots=3.0"),
        (REGEX.format("fleet", "x$1", ""), {}, "fleet/red/7", "boat,fleet=xred knots=3.0"),
        (REGEX.format("fw", "x$1", ""), {}, "other", "boat knots=3.0"),
        (REGEX.format("fw", "x$1", ""), {"fw": 12}, "other", "boat,fw=x12 knots=3.0"),
        (REGEX.format("fw", "x", 'result_key = "n"'), {}, "other", "boat knots=3.0"),
        (REGEX.format("fw", "x", 'result_key = "fleet"\nappend = true'), {}, "other", "boat knots=3.0"),
        (REGEX.format("fw", "-", 'result_key = "fleet"\nappend = true'), {}, "fleet/a/b", "boat,fleet=a knots=3.0"),
        (
            REGEX.format("fw", "-", 'result_key = "fleet"\nappend = true'),
            {"fw": "7"},
            "fleet/a/b",
            "boat,fleet=a-,fw=7 knots=3.0",
        ),
        (
            REGEX.format("fw", "-", 'result_key = "fleet"\nappend = true'),
            {"fw": "7"},
            "other",
            "boat,fleet=-,fw=7 knots=3.0",
        ),
        ('[[processors.strings]]\n[[processors.strings.uppercase]]\ntag = "fw"', {}, "other", "boat knots=3.0"),
        ('[[processors.strings]]\n[[processors.strings.trim]]\ntag = "fw"', {"fw": 2}, "a", "boat,fw=2 knots=3.0"),
        ('[[processors.converter]]\n[processors.converter.tags]\nmeasurement = ["fw"]', {}, "a", "boat knots=3.0"),
        (
            '[[processors.converter]]\n[processors.converter.tags]\nmeasurement = ["fw"]',
            {"fw": 9},
            "a",
            "9 knots=3.0",
        ),
        (
            '[processors]\ndefaults = [{tags = {fw = "beta"}}]\nstrings = [{uppercase = [{tag = "fw"}]}]',
            {},
            "a",
            "boat,fw=BETA knots=3.0",
        ),
        (ENUM.format("fields", "state", -1, 1), {}, "other", "boat knots=3.0"),
        (ENUM.format("fields", "state", -1, 1), {"state": "out"}, "other", "boat knots=3.0,state=1i"),
        (ENUM.format("fields", "state", -1, 1), {"state": "in"}, "other", "boat knots=3.0,state=-1i"),
        (ENUM.format("tags", "fleet", '"none"', '"away"'), {}, "other", "boat knots=3.0"),
        (ENUM.format("tags", "fleet", '"none"', '"away"'), {}, "fleet/x/y", "boat,fleet=none knots=3.0"),
        (ENUM.format("tags", "fleet", '"none"', '"away"'), {}, "fleet/out/y", "boat,fleet=away knots=3.0"),
        ("", {"strokes": 7.9}, "other", "boat knots=3.0,strokes=7i"),
        ("", {"strokes": -7.9}, "other", "boat knots=3.0,strokes=-7i"),
        ("", {"strokes": "-7"}, "other", "boat knots=3.0,strokes=-7i"),
        ("", {"strokes": None}, "other", "boat knots=3.0"),
    ],
)
def test_what_a_message_has_not_stays_away(processors: str, message: dict[str, Any], topic: str, line: str) -> None:
    """Processors and conversions of Telegraf leave a missing tag or field alone, and change one that is there."""
    sample = Message(b'{"knots": 3.5, "strokes": 2.5, "state": "out"}', "s", "t", headers={"topic": "fleet/a/b"})
    made = convert("telegraf", INPUT + processors, options=Options(samples=[sample]))
    (mapping,) = (text for name, text in made.files.items() if name != "pipeline.yaml")
    payload = json.dumps({"knots": 3, **message}).encode()

    plan = parse_mapping(mapping, format="yaml", name="m").plan()
    rendered = plan.render([Message(payload, "s", "t", headers={"topic": topic}, timestamp_us=1)])

    assert (rendered.lines, rendered.failures) == ([f"{line} 1000"], [])


@pytest.mark.parametrize(
    ("form", "text", "with_name", "lines"),
    [
        ("telegraf", 'json_name_key = "fish"', "cod", ["file l_0_n=3.0,n=3.0", "cod l_0_n=3.0,n=3.0"]),
        (
            "telegraf",
            '[[inputs.file.json_v2]]\nmeasurement_name_path = "fish"\nfield = [{path = "n"}]',
            "cod",
            ["cod n=3.0"],
        ),
        (
            "telegraf",
            '[[inputs.file.json_v2]]\nmeasurement_name_path = "fish"\nobject = [{path = "l"}]',
            7,
            ["7 n=3.0"],
        ),
        ("telegraf", '[[inputs.file.xpath]]\nmetric_name = "fish"\nfields = {n = "number(n)"}', 7, ["7 n=3.0"]),
        ("kcql", "INSERT INTO x SELECT n FROM t WITHTARGET=fish", "cod", ["x n=3i", "cod n=3i"]),
        ("mqtt2influxdb", "points: [{measurement: $.payload.fish, fields: {n: $.payload.n}}]", 7, ["7 n=3i"]),
    ],
)
def test_a_missing_measurement_is_not_the_text_null(form: str, text: str, with_name: Any, lines: list[str]) -> None:
    """A point whose measurement the message has not fails, or has the name that the other tool falls back to."""
    data_format = next((each for each in ("json_v2", "xpath_json", "json") if each.split("_json")[0] in text), "")
    head = f'[[inputs.file]]\ndata_format = "{data_format}"\n'
    payload = {"n": 3, "l": [{"n": 3}]}
    made = convert(form, (head if form == "telegraf" else "") + text, options=Options(samples=messages_of(payload)))
    (mapping,) = (text for name, text in made.files.items() if name != "pipeline.yaml")

    plan = parse_mapping(mapping, format="yaml", name="m").plan()
    rendered = [plan.render(messages_of(each)).lines for each in (payload, payload | {"fish": with_name})]

    assert [line.removesuffix(" 1000") for each in rendered for line in each] == lines


def messages_of(payload: Any) -> list[Message]:
    return [Message(json.dumps(payload).encode(), "s", "t", timestamp_us=1)]


KCQL = [
    # of the rules in lensesio/stream-reactor 10.0.4: a statement, a message, and the line; None where it fails
    ("SELECT * FROM t", {"oar": 2, "sail": True, "name": "Tern"}, 'm name="Tern",oar=2i,sail=true'),
    ("SELECT *, name AS called FROM t", {"oar": 2, "name": "Tern"}, 'm called="Tern",oar=2i'),
    ("SELECT name, crew.cook AS cook FROM t", {"name": "T", "crew": {"cook": 1.5}}, 'm cook=1.5,name="T"'),
    ("SELECT crew.cook FROM t", {"crew": {"cook": 1}}, "m cook=1i"),
    ("SELECT name FROM t", {"oar": 2}, None),
    ("SELECT * FROM t", {"crew": {"cook": 1}}, None),
    ("SELECT * FROM t", {"oars": [1, 2]}, None),
    ("SELECT * FROM t IGNORE oar, name", {"oar": 2, "name": "T", "keel": 3}, "m keel=3i"),
    ("SELECT oar, keel FROM t IGNORE oar", {"oar": 2, "keel": 3}, "m keel=3i"),
    (
        "SELECT keel FROM t WITHTAG(oar, sail AS rig, line=north-1)",
        {"oar": 2, "sail": "x", "keel": 3},
        "m,line=north-1,oar=2,rig=x keel=3i",
    ),
    ("SELECT keel FROM t WITHTAG(crew.cook)", {"crew": {"cook": "Jo"}, "keel": 3}, "m,crew.cook=Jo keel=3i"),
    ("SELECT keel FROM t WITHTAG(gone)", {"keel": 3}, "m keel=3i"),
    ("SELECT * FROM t WITHTAG(oar AS oars)", {"oar": 2, "keel": 3}, "m,oars=2 keel=3i,oar=2i"),
    ("SELECT keel FROM t WITHTARGET=name", {"name": "Tern", "keel": 3}, "Tern keel=3i"),
    ("SELECT keel FROM t WITHTARGET=name", {"keel": 3}, "m keel=3i"),
    ("SELECT * FROM t WITHTARGET=name", {"name": "Tern", "keel": 3}, 'Tern keel=3i,name="Tern"'),
    (
        "SELECT * FROM t WITHTIMESTAMP at",
        {"at": 1600000000123, "keel": 3},
        "m at=1600000000123i,keel=3i 1600000000123000000",
    ),
    (
        "SELECT keel FROM t WITHTIMESTAMP at TIMESTAMPUNIT=SECONDS",
        {"at": 1600000000, "keel": 3},
        "m keel=3i 1600000000000000000",
    ),
    (
        "SELECT keel FROM t WITHTIMESTAMP at",
        {"at": "2020-09-13T12:26:40.5Z", "keel": 3},
        "m keel=3i 1600000000500000000",
    ),
    ("SELECT keel FROM t WITHTIMESTAMP at", {"at": 1600000000.25, "keel": 3}, "m keel=3i 1600000000250000000"),
    ("SELECT keel FROM t WITHTIMESTAMP at", {"keel": 3}, "m keel=3i"),
    ("SELECT keel FROM t WITHTIMESTAMP at", {"at": [1], "keel": 3}, None),
    ("SELECT keel FROM t WITHTIMESTAMP sys_time()", {"keel": 3}, "m keel=3i"),
]


@pytest.mark.parametrize(("statement", "message", "line"), KCQL)
def test_kcql_means_what_it_means_to_lenses(statement: str, message: dict[str, Any], line: str | None) -> None:
    """Without a time in the line, it is that of the message."""
    made = convert("kcql", f"INSERT INTO m {statement}", options=Options(samples=messages_of(message)))
    (mapping,) = (text for name, text in made.files.items() if name != "pipeline.yaml")
    rendered = parse_mapping(mapping, format="yaml", name="m").plan().render(messages_of(message))

    assert [each.removesuffix(" 1000") for each in rendered.lines] == ([line] if line else [])
    assert len(rendered.failures) == (not line)


INFLUX_2 = '[[inputs.file]]\ndata_format = "influx"\n[[outputs.influxdb_v2]]\nurls = ["http://a:8086"]\n'
FISH = "points: [{measurement: fish, fields: {n: $.payload.n}}]"


@pytest.mark.parametrize(
    ("form", "text", "lacks"),
    [
        ("kcql", "INSERT INTO x SELECT n FROM t", {"no address of InfluxDB"}),
        (
            "kcql",
            "connect.influx.db=lake\nconnect.influx.kcql=INSERT INTO x SELECT n FROM t",
            {"no address of InfluxDB"},
        ),
        ("kcql", "connect.influx.url=http://a:1\nconnect.influx.kcql=INSERT INTO x SELECT n FROM t", {"`database`"}),
        ("mqtt2influxdb", FISH, {"no address of InfluxDB"}),
        ("mqtt2influxdb", f"{FISH}\ninfluxdb: {{host: a}}", {"`database`"}),
        ("mqtt2influxdb", f"{FISH}\ninfluxdb: {{host: a, database: lake}}", set()),
        (
            "iggy-influxdb-sink",
            "plugin_config = {}\nstreams = [{stream = 's', topics = ['t']}]",
            {"no address of InfluxDB"},
        ),
        ("telegraf", INFLUX_2, {"`bucket`"}),
        ("telegraf", f"{INFLUX_2}bucket = 'b'\n[[outputs.influxdb_v3]]\nurls = ['http://a:1']", {"`database`"}),
        ("telegraf", f"{INFLUX_2}bucket = 'b'", set()),
    ],
)
def test_the_report_says_what_the_pipeline_lacks(form: str, text: str, lacks: set[str], tmp_path: Path) -> None:
    """What `validate` finds in the section `influxdb` is in the report, and nothing else is."""
    made = convert(form, text)
    for name, content in made.files.items():
        (tmp_path / name).write_text(content, "utf-8")
    problems: list[str] = []
    try:
        open_routes(load_pipeline(tmp_path / "pipeline.yaml", environ=EVERYTHING))
    except PipelineError as error:
        problems = [problem.message for problem in error.problems]

    said = [line.became for line in made.report.lines if line.construct == "pipeline.yaml, influxdb"]
    assert len(said) == len(lacks)
    assert all(any(each in line for line in said) for each in (*lacks, *problems))


@pytest.mark.parametrize("number", ["+07", "07", "-3", "12"])
def test_a_text_with_a_number_is_read_as_go_reads_it(number: str) -> None:
    """`type = "int"` of json_v2; the lines of Telegraf 1.40 are the same."""
    text = '[[inputs.file]]\ndata_format = "json_v2"\n[[inputs.file.json_v2]]\nfield = [{path = "n", type = "int"}]'
    made = convert("telegraf", text, options=Options(samples=messages_of({"n": number})))
    (mapping,) = (text for name, text in made.files.items() if name != "pipeline.yaml")

    rendered = parse_mapping(mapping, format="yaml", name="m").plan().render(messages_of({"n": number}))
    assert rendered.lines == [f"file n={int(number)}i 1000"]


@pytest.mark.parametrize(
    "processor",
    [
        '[[processors.strings]]\n[[processors.strings.uppercase]]\nfield = "{}"',
        '[[processors.regex]]\n[[processors.regex.fields]]\nkey = "{}"\npattern = "^(.)"\nreplacement = "x$1"',
    ],
)
def test_functions_of_texts_leave_numbers_alone(processor: str) -> None:
    """Telegraf changes fields that are texts, and no others."""
    parser = '[[inputs.file]]\ndata_format = "json"\njson_string_fields = ["name"]\n'
    sample = messages_of({"oars": 4.5, "name": "tern"})
    for key, wanted in (("oars", 'file name="tern",oars=4.5'), ("name", "file name=")):
        made = convert("telegraf", parser + processor.format(key), options=Options(samples=sample))
        (mapping,) = (text for name, text in made.files.items() if name != "pipeline.yaml")
        rendered = parse_mapping(mapping, format="yaml", name="m").plan().render(sample)

        assert rendered.failures == []
        assert rendered.lines[0].startswith(wanted)
        assert ('"tern"' in rendered.lines[0]) == (key == "oars")


COPIES = [
    # processors that make another field of `sail`, and what they make
    ("enum = [{mapping = [{field = 'sail', dest = 'area', value_mappings = {jib = 7}}]}]", {"area": 7}),
    ("regex = [{fields = [{key = 'sail', pattern = 'j(.*)', replacement = '$1', result_key = 'end'}]}]", {"end": "ib"}),
    ("regex = [{fields = [{key = 'sail', pattern = '(?P<first>.)'}]}]", {"first": "j"}),
    ("strings = [{uppercase = [{field = 'sail', dest = 'loud'}]}]", {"loud": "JIB"}),
    ("rename = [{replace = [{field = 'sail', dest = 'cloth'}]}]", {"cloth": "jib", "sail": None}),
]
STARS = {
    "json": "json_string_fields = ['*']\n",
    "csv": "csv_header_row_count = 1\n",
    "logfmt": "",
    "influx": "",
    "json_v2": "json_v2 = [{object = [{path = '@this'}]}]\n",
}
SAIL = {
    "csv": b"sail,knots\njib,3.5\n",
    "logfmt": b"sail=jib knots=3.5",
    "influx": b'boat sail="jib",knots=3.5',
}


@pytest.mark.parametrize(("processor", "made"), COPIES)
@pytest.mark.parametrize("form", STARS)
def test_a_field_of_which_another_is_made_stays(form: str, processor: str, made: dict[str, Any]) -> None:
    """Without samples a star has the fields, and it is without what others read; Telegraf writes both."""
    head = f'[[inputs.file]]\ndata_format = "{form}"\n{STARS[form]}'
    (mapping,) = (
        text
        for name, text in convert("telegraf", f"{head}[processors]\n{processor}").files.items()
        if name != "pipeline.yaml"
    )
    payload = SAIL.get(form, b'{"sail": "jib", "knots": 3.5}')
    rendered = parse_mapping(mapping, format="yaml", name="m").plan().render([Message(payload, timestamp_us=1)])
    (point,) = parse_lines("\n".join(rendered.lines))
    expected = {"sail": "jib", "knots": 3.5} | made

    assert point.fields == {key: value for key, value in expected.items() if value is not None}


def test_excluded_keys_are_left_out_with_what_is_in_them() -> None:
    """No processor makes fields of them either; each name is in the list once.  Telegraf 1.40 leaves out the same."""
    text = """
    [[inputs.file]]
    data_format = "json_v2"
    json_v2 = [{object = [{path = "@this", excluded_keys = ["mast", "sail"], fields = {oars = "int"}}]}]
    [processors]
    converter = [{fields = {float = ["oars"]}}]
    strings = [{uppercase = [{field = "sail", dest = "loud"}]}]
    rename = [{replace = [{field = "mast", dest = "pole"}]}]
    """
    (mapping,) = (text for name, text in convert("telegraf", text).files.items() if name != "pipeline.yaml")
    payload = {"mast": {"high": 3, "low": {"er": 2}}, "sail": "jib", "oars": 2, "keel": {"deep": 4}, "masts": 5}
    rendered = parse_mapping(mapping, format="yaml", name="m").plan().render(messages_of(payload))

    assert rendered.lines == ["file keel_deep=4.0,masts=5.0,oars=2.0 1000"]
    names = re.search(r"exclude: \[(.*)\]", mapping)
    assert names
    assert max(Counter(names[1].split(", ")).values()) == 1


MQTT = sorted((CASES.parent / "importing-mqtt").iterdir())


@pytest.mark.parametrize("folder", MQTT, ids=lambda path: path.name)
def test_the_mapping_writes_what_mqtt2influxdb_writes(folder: Path) -> None:
    """Messages sent by a broker to the version that names the folder, and the lines that it wrote of them."""
    made = convert("mqtt2influxdb", (folder / "mqtt2influxdb.yml").read_text("utf-8"))
    plan = parse_mapping(made.files["mqtt.yaml"], format="yaml", name="m").plan()
    rows = [json.loads(line) for line in (folder / "messages.ndjson").read_text("utf-8").splitlines()]
    clock = 1_700_000_000_000_000

    for row in rows:
        rendered = plan.render([Message(row["payload"].encode(), headers={"topic": row["topic"]}, timestamp_us=clock)])
        points = parse_lines("\n".join(row["lines"]))
        wanted = [
            # what is of the year 2020 was in the message
            Point(*each, time if time and time < 1_650_000_000_000_000_000 else clock * 1000).encode()
            for *each, time in ((each.measurement, each.tags, each.fields, each.timestamp_ns) for each in points)
        ]

        assert sorted(Point.encode(each) for each in parse_lines("\n".join(rendered.lines))) == sorted(wanted), row
    assert "canary" not in "".join(made.files.values())


def test_the_report_gives_the_error_that_removes_a_part_and_not_a_warning() -> None:
    """A document that is refused may have warnings before the error."""
    made = convert("kcql", "INSERT INTO `oar=2` SELECT keel FROM t")
    reasons = [line.became for line in made.report.lines if line.construct == "oar-2.yaml, points"]

    assert [reason.split(":")[0] for reason in reasons] == ["IFX122"]


def test_strict_wants_everything_as_it_is(tmp_path: Path) -> None:
    """`--strict` exits with 1 for a report with a line that is not `taken`; the documents are written all the same."""
    folder = CASES / "iggy-sink"
    form, file = configuration(folder)
    exact = tmp_path / "exact.toml"
    exact.write_text(
        '[[streams]]\nstream = "s"\ntopics = ["t"]\nschema = "raw"\nconsumer_group = "g"\n[plugin_config]\nurl = "http://x:1"\n'
        'bucket = "b"\ninclude_checksum = false\npayload_format = "base64"\n'
    )

    assert iggyflux("import", form, file, "-o", tmp_path / "a", "--strict").code == 1
    assert iggyflux("import", form, file, "-o", tmp_path / "b").code == 0
    assert iggyflux("import", form, exact, "-o", tmp_path / "c", "--strict").code == 0
    assert (tmp_path / "a" / "pipeline.yaml").exists()


def test_existing_files_are_kept(tmp_path: Path) -> None:
    """No file is replaced unasked, and none is written then."""
    form, file = configuration(CASES / "iggy-sink")
    (tmp_path / "pipeline.yaml").write_text("mine")
    outcome = iggyflux("import", form, file, "-o", tmp_path)

    assert outcome.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]
    assert iggyflux("import", form, file, "-o", tmp_path, "--force").code == 0


def test_a_file_of_another_tool_is_a_problem(tmp_path: Path) -> None:
    """A configuration of which nothing can be used says so, after the report."""
    file = tmp_path / "x.toml"
    file.write_text('[package]\nname = "x"\n')
    outcome = iggyflux("import", "telegraf", file, "-o", tmp_path / "out")

    assert outcome.code == 1
    assert "IFX190" in outcome.err
    assert "`[[inputs.NAME]]`" in outcome.err
    assert "package.name" in outcome.out
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["x.toml"]'


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("content", "code"), [(b" \n", "IFX190"), (b"\xc3(", "IFX103")])
def test_a_file_with_nothing_to_read_is_named(form: str, content: bytes, code: str, tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_bytes(content)
    outcome = iggyflux("import", form, file, "-o", tmp_path / "out")

    assert outcome.code == 1
    assert code in outcome.err
    assert "x.conf" in outcome.err
    assert "iggyflux init" not in outcome.err


def test_the_page_names_every_construct() -> None:
    """Each format, format of payloads, processor and output that is converted has its row on the page."""
    page = (Path(__file__).parent.parent / "docs" / "importing.md").read_text("utf-8")

    missing = [name for name in (*FORMATS, *PARSERS, *PROCESSORS, *FLAVORS) if f"`{name}`" not in page]
    assert missing == []
