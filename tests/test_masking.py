"""No value of an unknown or secret key of a pipeline file appears in what a command says about the file."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.cli.output import unstyled
from iggyflux.cli.reports import FORMS, problem_lines
from iggyflux.cli.validate import check_file
from iggyflux.documents import load_schema
from iggyflux.documents.line_masking import hidden_in_lines
from iggyflux.documents.pipeline_keys import vocabulary
from iggyflux.errors import PipelineError
from iggyflux.pipeline import parse_pipeline

SCHEMA = load_schema("pipeline")
CANARY = "Qx7vK2wZ9"
UNKNOWN = [
    "headers",
    "Authorization",
    "api_key",
    "secret",
    "pwd",
    "passphrase",
    "hdr",
    "x y",
    "tokn",
    "ünknown",
    "passw0rd",
    "access_key",
    "private_key",
    "userkey",
]
CANARIES = [
    CANARY,
    f"Bearer {CANARY}",
    f"a{CANARY}%00",
    f"{CANARY}: {CANARY}",
    f"\\\\{CANARY}'\"",
    f"{CANARY} # {CANARY}",
]
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""An example is short, and shrinking takes minutes."""
SIGNS = [*":{}[],'\"\n\t#&*!|>%@`=- \x07", "\n  ", ": ", "${", "!!x ", "&a ", "*a", "---\n"]
SECRET_KEYS = ["token", "password", "connection_string", "client_key_passphrase"]


@st.composite
def tree_of(draw: Any, node: Any, key: str = "") -> Any:
    """A tree that the schema of pipelines describes, with canaries as the values of secret and unknown keys."""
    if "$ref" in node:
        return draw(tree_of(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], key))
    if key in SECRET_KEYS:
        return draw(st.sampled_from(CANARIES))
    if key in ("url", "address") and draw(st.booleans()):
        return draw(st.sampled_from(["u:{}@host:1", "http://u:{}@h", "iggy://{}@h/x", "http://h/?k={}"])).format(CANARY)
    if "const" in node or "enum" in node:
        return node.get("const", node.get("enum", [None])[0])
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    kind = draw(st.sampled_from(kinds))
    if kind == "object" and "properties" not in node:  # names of headers
        return {draw(st.sampled_from(["X-Key", "Authorization"])): draw(st.sampled_from(CANARIES))}
    if kind == "object":
        known = list(node["properties"])
        chosen = draw(st.lists(st.sampled_from(known), max_size=4, unique=True))
        tree = {
            each: draw(tree_of(node["properties"][each], each))
            for each in dict.fromkeys([*chosen, *node.get("required", ())])
        }
        if draw(st.integers(0, 2)) == 0:
            tree[draw(st.sampled_from(UNKNOWN))] = draw(planted())
        return dict(draw(st.permutations(list(tree.items()))))
    if kind == "array":
        return draw(st.lists(tree_of(node["items"], key), min_size=1, max_size=2))
    return {"string": "7s", "integer": 7, "boolean": True}[kind]


@st.composite
def planted(draw: Any, depth: int = 0) -> Any:
    """A canary, alone or in a tree of unknown keys."""
    kind = draw(st.sampled_from(["text", "text", "list", "object", "number"] if depth < 2 else ["text"]))
    if kind == "text":
        return draw(st.sampled_from(CANARIES))
    if kind == "number":
        return 7310994
    if kind == "list":
        return draw(st.lists(planted(depth + 1), min_size=1, max_size=2))
    keys = draw(
        st.lists(st.sampled_from([*UNKNOWN, "token", "url", "bucket", "mapping", "to"]), min_size=1, max_size=2)
    )
    return {key: draw(planted(depth + 1)) for key in keys}


def yaml(value: Any, style: str, pad: str = "") -> str:
    """Return a tree as YAML in blocks; a scalar in one of the styles that a person may choose."""
    if isinstance(value, dict) and value:
        return "".join(
            f"\n{pad}{key}: {yaml(child, style, pad + deeper(child, style))}" for key, child in value.items()
        )
    if isinstance(value, list) and value:
        return "".join(f"\n{pad}- {yaml(child, style, pad + '  ').lstrip()}" for child in value)
    if isinstance(value, str) and style in PLAIN and re.fullmatch(r"[^\s'\"&*!|>%@`#\\:?,\[\]{}-][^#:\\]*", value):
        return value
    if isinstance(value, str) and style == "block":
        return f"|\n{pad}  {value}"
    if isinstance(value, str) and style == "single":
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value, ensure_ascii=False)


OF_CANARIES = re.compile(rf"\S*({CANARY}|7310994)\S*|^[ \t-]*(?=.*({CANARY}|7310994))", re.MULTILINE)
"""A canary, and what says where in a block it belongs."""
PLAIN = ("plain", "lists at their key")


def deeper(value: Any, style: str) -> str:
    return "" if isinstance(value, list) and style == "lists at their key" else "  "


def toml(value: Any, equals: str = " = ") -> str:
    """Return a tree as a value of TOML, with inline tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}{equals}{toml(child, equals)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(child, equals) for child in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def toml_tables(tree: dict[str, Any], style: str, name: str = "") -> str:
    """Return a tree as TOML with a table for each object, or as dotted keys, with lists over several lines."""
    text, tables = "", ""
    for key, child in tree.items():
        path = f"{name}.{named(key)}" if name else named(key)
        if isinstance(child, dict) and style == "toml dotted":
            text += toml_tables(child, style, path)
        elif isinstance(child, dict):
            tables += f"[{path}]\n" + toml_tables(child, style, path)
        else:
            left = path if style == "toml dotted" else named(key)
            text += f"{left} = {toml(child).replace('[', '[' + chr(10)).replace('}, {', '},' + chr(10) + '{')}\n"
    return text + tables


def named(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


@st.composite
def line_ends(draw: Any, text: str) -> str:
    """The text with line ends of other systems and of programs that damage them, each alone or mixed."""
    ends = draw(st.sampled_from([["\n"], ["\n"], ["\r\n"], ["\r"], ["\r\r\n"], ["\n", "\r\n", "\r", "\r\r\n"]]))
    return "".join(line + (draw(st.sampled_from(ends)) if len(ends) > 1 else ends[0]) for line in text.split("\n"))


STYLES = ["plain", "lists at their key", "single", "double", "block", "flow", "toml", "toml tables", "toml dotted"]


@st.composite
def broken_pipelines(draw: Any) -> tuple[str, str]:
    """The text of a pipeline that is broken somewhere, and its format."""
    tree = draw(tree_of(SCHEMA))
    for _ in range(draw(st.integers(0, 2))):
        damage(draw, tree)
    style = draw(st.sampled_from(STYLES))
    if style == "flow":
        signs = draw(st.sampled_from([(", ", ": "), (",", ":"), (",\n", ": ")]))
        text = json.dumps(tree, ensure_ascii=False, indent=draw(st.sampled_from([None, 0, 2])), separators=signs)
        text = draw(st.sampled_from([text, text[1:-1], re.sub(r'"(\w+)":', r"\1: ", text)]))
    elif style == "toml":
        equals = draw(st.sampled_from([" = ", "="]))
        text = "".join(f"{named(key)}{equals}{toml(child, equals)}\n" for key, child in tree.items())
    elif style.startswith("toml"):
        text = toml_tables(tree, style)
    else:
        text = yaml(tree, style).lstrip("\n") + "\n"
    for _ in range(draw(st.integers(0, 2))):
        taken = [range(match.start() - 3, match.end()) for match in OF_CANARIES.finditer(text)]
        at = draw(st.sampled_from([at for at in range(len(text)) if not any(at in each for each in taken)] or [0]))
        sign = draw(st.sampled_from(SIGNS))
        text = text[:at] + sign + text[at + draw(st.integers(0, 3)) :]
    return draw(line_ends(text)), "toml" if style.startswith("toml") else "yaml"


def damage(draw: Any, tree: Any) -> None:
    """Misspell a key, or give it a value of another type, somewhere in the tree."""
    places = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            places += [(node, key) for key in node]
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    node, key = draw(st.sampled_from(places))
    value = node.pop(key)
    how = draw(st.sampled_from(["misspelt", "list", "object", "text", "number", "null"]))
    wrong = {"list": [value], "object": {"k": value}, "text": "words", "number": 3.5, "null": None}
    node[key[:-1] + "x" if how == "misspelt" else key] = value if how == "misspelt" else wrong[how]


def pieces(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(len(text) - 4)}


PIECES = pieces(CANARY) | {"7310994"}


def leaks(shown: str) -> list[str]:
    return [piece for piece in PIECES if piece in shown]


@pytest.mark.parametrize(
    "text",
    [
        "url: http://user:p@Qx7vK2wZ9@host:8086 : x",
        "influxdb: {url: \"http://user:pa'Qx7vK2wZ9@host",
        'influxdb: {url: http://h}\ninfluxdb: {url: "http://u:p@Qx7vK2wZ9@host"}',
        "url: http://h/?token=a'Qx7vK2wZ9 : x",
        "influxdb: {address: u:Qx7vK2wZ9@h, url: http://h} : x",
        "influxdb: {address: u:Qx7vK2wZ9@h, url: http://u:x@h} : x",
        'run: [{"headers": {"url": "Qx7vK2wZ9"}}], x',
        "influxdb:\n  headers:\n    url: Qx7vK2wZ9 : y\n  bucket: b : c",
        "[influxdb.headers]\nurl = Qx7vK2wZ9\n",
        'x: : y\nfrom: {"file": "7s", "yield": {"url": "Qx7vK2wZ9"}}',
        'x: : y\nfrom: {"yield": {"topic": 1,\n"url": "Qx7vK2wZ9",\n"to": "Qx7vK2wZ9"}}\nto: {',
        'x: : y\nfrom: {"yield":\n{"url": "Qx7vK2wZ9"}}',
        'x: : y\nfrom: {"headers"\n: {"url": "Qx7vK2wZ9"}}',
        'x: : y\nfrom: {"headers"@ {"url": "Qx7vK2wZ9"}}',
        "x: : y\ninfluxdb: {'headers':{url: Qx7vK2wZ9}}",
        "x: : y\nlambda:\n- url: Qx7vK2wZ9",
        "x: : y\nlambda: !!x\n # del\n  url: Qx7vK2wZ9",
        "x: : y\nbucket: {url: Qx7vK2wZ9}",
        "lambda: *Qx7vK2wZ9",
        "x = = y\n[lambda.influxdb]\nurl = 'Qx7vK2wZ9'",
        "x = = y\nlambda.url = 'Qx7vK2wZ9'",
        "x = = y\ninfluxdb={headers={url='Qx7vK2wZ9'}}",
        "x = = y\nlambda = [\n{url = 'Qx7vK2wZ9'},\n]",
        "lambda]\nurl = 'Qx7vK2wZ9'",
        "to = 's'[lambda]\nurl = 'Qx7vK2wZ9'",
    ],
)
@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_a_login_and_what_is_under_a_secret_key_are_hidden_in_any_line(text: str, form: str, tmp_path: Path) -> None:
    file = tmp_path / f"p.{form}"
    file.write_text(f"iggyflux: 1\n{text}\n", "utf-8")
    checked, _ = check_file(file)
    lines = [unstyled(line) for problem in checked.problems for line in problem_lines(problem)]

    assert leaks("\n".join(lines)) == []
    for line, spans in zip(text.split("\n"), hidden_in_lines(text), strict=True):
        assert leaks("".join(sign for at, sign in enumerate(line) if not any(a <= at < b for a, b in spans))) == []


@pytest.mark.parametrize(
    "text",
    [
        '=un":[{"pwd":[{"secret":"Qx7vK2wZ9"}]}]: 1',
        'run: []\n"x{token: Qx7vK2wZ9}": 1',
        "influxdb: {'url [Qx7vK2wZ9]': 1}",
        "? {pwd: Qx7vK2wZ9}\n: 1",
    ],
)
def test_a_key_that_is_damaged_text_is_hidden(text: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"iggyflux: 1\n{text}\n", "utf-8")
    checked, _ = check_file(file)

    assert checked.problems
    assert leaks("\n".join(unstyled(line) for each in checked.problems for line in problem_lines(each))) == []


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], phases=WITHOUT_SHRINKING)
@given(broken=broken_pipelines())
def test_no_problem_of_a_broken_pipeline_shows_a_value_of_an_unknown_key(
    broken: tuple[str, str], tmp_path: Path
) -> None:
    """In every form of `validate`: drawn through the schema, and broken anywhere."""
    text, form = broken
    file = tmp_path / f"p.{form}"
    file.write_text(text, "utf-8")
    checked, _ = check_file(file)
    lines = [unstyled(line) for problem in checked.problems for line in problem_lines(problem)]

    assert leaks("\n".join(lines)) == []
    for report in FORMS.values():
        assert leaks(report([checked])) == []


ODD = [*" \t\r\n\x85\u2028\x07'\"@:/?#\\,{}[]=%&!*|>-", "a", "7", ": ", " #", "\r\n"]
FAULTS = {
    "yaml": ["runn: []", "run: 1", "run: []", "x: : y", "run: [", "run: *z", "iggyflux: 1", "run: []\nto: !x y", "\tx"],
    "toml": ["runn = []", "run = 1", "run = []", "x = = y", "run = [", "iggyflux = 1", "run = nan", "x"],
}


@st.composite
def pipelines_with_a_login(draw: Any) -> tuple[str, str]:
    """The text of a pipeline with a fault and an address with a password of any characters, and its format."""
    odd = st.lists(st.sampled_from(ODD), max_size=3).map("".join)
    password = f"{draw(odd)}{CANARY}{draw(odd)}"
    # What begins a line and ends in a colon is a key, whose name is not a secret.
    assume(not re.search(rf"[\r\n]\W*{CANARY}[^@]*:", password))
    start = draw(st.sampled_from(["http://u:{}@h:1", "iggy://u:{}@h/x", "u:x{}@h:1", "http://h/?k=x{}"]))
    if "://u" not in start:
        password = re.sub(r"[\s\"'@/:={}\[\],()#]", "", password)
    address = start.format(password).replace("://", draw(st.sampled_from(["://", "://", ":\r//", ":/\t/", ":\\/\\/"])))
    form = draw(st.sampled_from(["yaml", "toml"]))
    quoted = [f'"{address}"', f"'{address}'", json.dumps(address), json.dumps(address, ensure_ascii=False)]
    value = draw(st.sampled_from([*quoted, address] if form == "yaml" else [*quoted, f'"""{address}"""']))
    table, key = draw(st.sampled_from([("influxdb", "url"), ("iggy", "address")]))
    sign = ": " if form == "yaml" else " = "
    inline = f"{table}{sign}{{{key}{sign}{value}, stream{sign}x}}"
    block = f"{table}:\n  {key}: {value}" if form == "yaml" else f"{table}.{key} = {value}"
    near = draw(st.sampled_from(["", "", " : x", "]", " @", '"', "\n   z: : y"]))
    lines = [f"iggyflux{sign}1", draw(st.sampled_from([inline, block])) + near, draw(st.sampled_from(FAULTS[form]))]
    if draw(st.booleans()):
        lines[1:] = lines[:0:-1]
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\r\n", "\r"])), form


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(broken=pipelines_with_a_login())
@example(broken=("influxdb:\n  url: http://u:Qx7vK2wZ9\x85@influx\nrun: 1\n", "yaml"))
@example(broken=('iggyflux = 1\ninfluxdb.url = "http:\r//u:Qx7vK2wZ9@h:1"\n', "toml"))
@example(broken=("influxdb:\n  url: http://u:Qx7v-7: K2wZ9vv@h\nrun: 1\n", "yaml"))
@example(broken=('influxdb: {url: "http://h/?tok=pw with Qx7vK2wZ9"}\nrun: [\n', "yaml"))
@example(broken=('influxdb: {url: "http://h:1", \rtoken: "Qx7vK2wZ9", x: [}\nrun: 1\n', "yaml"))
def test_no_problem_shows_a_login_whatever_its_characters(broken: tuple[str, str], tmp_path: Path) -> None:
    text, form = broken
    file = tmp_path / f"p.{form}"
    file.write_text(text, "utf-8", newline="")
    checked, _ = check_file(file)
    lines = [unstyled(line) for problem in checked.problems for line in problem_lines(problem)]

    assert checked.problems
    assert leaks("\n".join(lines)) == []
    for report in FORMS.values():
        assert leaks(report([checked])) == []


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    phases=WITHOUT_SHRINKING,
    max_examples=25,
)
@given(broken=broken_pipelines())
@pytest.mark.parametrize("command", ["validate", "test", "check", "run", "explain", "dry-run", "replay"])
def test_no_command_shows_a_value_of_an_unknown_key(command: str, broken: tuple[str, str], tmp_path: Path) -> None:
    """Also one that expects a mapping and gets a pipeline, or a file that is neither."""
    text, form = broken
    file = tmp_path / f"p.{form}"
    file.write_text(text, "utf-8")
    more = {"dry-run": [file], "replay": ["--pipeline", file], "test": ["--format", "junit"]}
    outcome = iggyflux(command, file, *more.get(command, []))

    assert leaks(outcome.out + outcome.err) == []
    assert "a bug in iggyflux" not in outcome.err


def test_the_time_for_a_problem_does_not_grow_with_the_number_of_hidden_values(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        file = tmp_path / f"{count}.yaml"
        keys = "\n".join(f"yield{number}: value{number}x" for number in range(count))
        file.write_text(f"iggyflux: 1\n{keys}\nrun: []\n", "utf-8")
        took = []
        for _ in range(3):  # a collection of garbage may take longer than the work
            began = time.process_time()
            checked, _ = check_file(file)
            took.append(time.process_time() - began)
            assert len(checked.problems) > count
        return min(took)

    seconds(10)
    assert seconds(800) < 9 * seconds(200) + 0.5


@pytest.mark.parametrize(
    "text",
    [
        "iggyflux: 1\nfrom: {stream: s, topic: del} # lambda\nclass: else # lambda\n",
        "iggyflux: 1\nfor_each: del\nclass: else # lambda\n",
        "iggyflux: 1\nwhere: del\nclass: else # lambda: [\nx: [\n",
    ],
)
def test_a_mapping_that_is_not_finished_is_shown(text: str, tmp_path: Path) -> None:
    """It has no secrets; a pipeline has none of these keys."""
    (tmp_path / "m.yaml").write_text(text)
    shown = iggyflux("validate", str(tmp_path / "m.yaml")).out
    assert "***" not in shown
    hidden = text.replace("iggyflux: 1", "iggyflux: 1\nrun: []")
    (tmp_path / "m.yaml").write_text(hidden)
    assert "lambda" not in iggyflux("validate", str(tmp_path / "m.yaml")).out


@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_keys_of_the_schema_are_shown_where_a_secret_is_the_same_word(tmp_path: Path, form: str) -> None:
    """Places and keys are those of the schema; the values, and other places of the same text, are masked."""
    file = tmp_path / f"p.{form}"
    text = "iggyflux: 1\niggy: {username: 'password', password: 'iggy', address: 'h:iggy'}\nrun: [{mapping: iggy}]\n"
    text = text.replace("mapping: iggy", "mapping: 'iggy.yaml'")
    file.write_text(text if form == "yaml" else text.replace(": '", " = '").replace(": ", " = "))
    shown = iggyflux("validate", file).out.replace(" ", "").replace("=", ":")

    assert "(at/iggy/address)" in shown
    assert re.search(r"\|iggy:\{username:'?password'?,password:'?\*\*\*'?,address:'h:\*\*\*'\}", shown), shown


PROBLEMS = """\
iggyflux: 1
iggy: {{username: u, password: ['{secret}'], transport: fax}}
from: log:data
to: {{bucket: b, retries: 5}}
influxdb: {{url: http://h, token: '{secret}', flavour: 3, precision: nss}}
run: [{{mapping: env.yaml, batchsize: x}}]
"""


@given(st.sampled_from(sorted(vocabulary().words - {""})))
@example("string")
@settings(max_examples=15)
def test_what_a_problem_expects_is_shown_where_a_secret_is_one_of_its_words(word: str) -> None:
    """It is the same whatever the secret is, and a word that is missing in it would tell the secret."""

    def fixed(secret: str) -> list[tuple[str, str | None, str | None]]:
        with pytest.raises(PipelineError) as error:
            parse_pipeline(PROBLEMS.format(secret=secret))
        said = [(each.code, each.message, each.expected, each.hint) for each in error.value.problems]
        return [(message if code == "IFX111" else code, *more) for code, message, *more in said]

    assert fixed(word) == fixed(CANARY)


@pytest.mark.parametrize("form", ["yaml", "toml"])
@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("", "kind", '"pipeline"'),
        ("", "kind", '"sink"'),
        ("", "retries", "7"),
        ("influxdb", "flavour", '"classic"'),
        ("influxdb", "enabled", "true"),
        ("influxdb", "batchsize", "50000"),
        ("iggy", "adress", '"10.0.0.7:8090"'),
    ],
)
def test_what_is_no_secret_is_shown_under_a_key_that_is_unknown(
    table: str, key: str, value: str, form: str, tmp_path: Path
) -> None:
    """A misspelt key of the schema, a key of mappings, and a value that no secret has."""
    sign = ": " if form == "yaml" else " = "
    inside = f"{table}{sign}{{{key}{sign}{value}}}" if table else f"{key}{sign}{value}"
    file = tmp_path / f"p.{form}"
    file.write_text(f"iggyflux{sign}1\n{inside}\nrun{sign}[{{mapping{sign}'m.yaml'}}]\n")

    shown = iggyflux("validate", str(file)).out

    assert f"unknown key `{key}`" in shown
    assert inside in shown


_HIDDEN = ["tokn", "usertoken", "clientkeypassphrase", "access_key", "client_keys", "psk", "apikey", "kinda"]


@pytest.mark.parametrize("key", _HIDDEN)
def test_a_value_under_a_key_that_may_be_of_a_secret_stays_hidden(key: str, tmp_path: Path) -> None:
    for table in ("influxdb", "iggy"):
        for value in (CANARY, 7310994):
            file = tmp_path / "p.yaml"
            file.write_text(f"iggyflux: 1\n{table}: {{{key}: {value}}}\nrun: []\n")
            shown = iggyflux("validate", str(file)).out

            assert f"{key}: ***" in shown
            assert leaks(shown) == []


def test_tags_of_a_pipeline_are_shown_unless_a_secret_gives_them(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    tags = "{site: harbour, hall: '${HALL}', pier: '${CRANE_TOKEN}', token: gantry}"
    file.write_text(f"iggyflux: 1\ntags: {tags}\nrun:\n- mapping: harbour-north-winch-gantry.yaml\n")
    shown = iggyflux("validate", file, env={"HALL": "north", "CRANE_TOKEN": "winch"}).out

    assert "mapping file not found" in shown
    assert "harbour-north-***-***.yaml" in shown
