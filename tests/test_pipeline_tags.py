"""Tags of a pipeline: on every point that has none of that name, in every command; and which are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import iggyflux

from iggyflux import Message, parse_mapping
from iggyflux.errors import PipelineError, PointError
from iggyflux.pipeline import parse_pipeline
from iggyflux.plan.tags import MAX_TAG_BYTES

DOCUMENT = """\
iggyflux: 1
kind: writer
from: {{stream: while, topic: größe}}
points:
  measurement: {{const: lambda}}
  tags: {tags}
  fields: {{def: def}}
  timestamp: {{expr: at, format: unix_s}}
"""
PIPELINE = "iggyflux: 1\nfrom: log:data\nto: file:points.lp\ndead_letters: dead\n"


def mapping(tags: str):
    return parse_mapping(DOCUMENT.format(tags=tags), name="m")


@pytest.mark.parametrize(
    ("tags", "member", "expected"),
    [
        ("{class: class}", '"class": "own"', "class=own"),
        ("{class: class}", '"class": null', "class=of\\ all"),
        ("{class: class}", '"class": ""', "class=of\\ all"),
        ("{class: {expr: class, default: other}}", '"class": null', "class=other"),
        ("{class: {const: fixed}}", '"class": "own"', "class=fixed"),
        ("{async: async}", '"async": "b"', "async=b,class=of\\ all"),
        ("{yield: yield}", '"yield": "b"', "class=of\\ all,yield=b"),
        ('{"*": x}', '"x": {"class": "own"}', "class=own"),
        ('{"*": x}', '"x": {"class": null, "yield": 1}', "class=of\\ all,yield=1"),
        ('{"*": x}', '"x": {"class": ""}', "class=of\\ all"),
        ('{"*": x}', '"x": null', "class=of\\ all"),
        ('{"*": x, class: class}', '"x": {"class": "in x"}', "class=of\\ all"),
        ('{"*": {expr: x, exclude: class}}', '"x": {"class": "left out"}', "class=of\\ all"),
        ("[]", '"x": 1', "class=of\\ all"),
    ],
)
@pytest.mark.parametrize("kind", ["compiled", "reference"])
def test_the_tag_of_the_mapping_is_stronger_where_it_has_a_value(kind, tags, member, expected):
    """Where a point has no tag of that name, for whatever reason, it gets the pipeline's, at its place in the order."""
    plan = mapping(tags).plan(kind, tags={"class": "of all"})
    rendered = plan.render([Message(f'{{{member}, "def": 1, "at": 7}}'.encode())])

    assert rendered.lines == [f"lambda,{expected} def=1.0 7000000000"]


def test_a_required_tag_of_the_mapping_stays_required():
    """The mapping says that the message must have it."""
    plan = mapping("{class: {expr: class, required: true}}").plan(tags={"class": "of all"})

    assert [failure.code for failure in plan.render([Message(b'{"def": 1, "at": 7}')]).failures] == ["IFX345"]


def test_generated_code_has_them_as_constant_text():
    """So they cost nothing a message: no column, no memo."""
    plan, with_tag = mapping("{yield: yield}").plan(), mapping("{yield: yield}").plan(tags={"class": "of all"})

    constant = ",class=of\\\\ all"
    assert constant in with_tag.source
    assert with_tag.source.replace(constant, "").replace("t1", "t0") == plan.source


@pytest.mark.parametrize(
    "tags", [{"time": "x"}, {"x": ""}, {"x": "a\n"}, {"x": "a\\"}, {"x" * 256: "y"}, {"x": "é" * 1000}]
)
def test_no_plan_adds_a_tag_that_a_server_loses(tags):
    """Also where a plan is made in Python."""
    with pytest.raises(PointError):
        mapping("[]").plan(tags=tags)


@pytest.mark.parametrize(
    ("tags", "code", "where"),
    [
        ("{time: x}", "IFX825", "/tags/time"),
        ('{x: "a\\n"}', "IFX825", "/tags/x"),
        ('{x: "a\\\\"}', "IFX825", "/tags/x"),
        ("{x: " + "y" * MAX_TAG_BYTES + "}", "IFX825", "/tags"),
        ('{x: ""}', "IFX114", "/tags/x"),
        ("{x: 007}", "IFX112", "/tags/x"),
        ("{x: true}", "IFX112", "/tags/x"),
        ("[x]", "IFX112", "/tags"),
        ('{x: "${NOWHERE}"}', "IFX802", "/tags/x"),
        ('{x: "${BACK}"}', "IFX825", "/tags/x"),
    ],
)
@pytest.mark.parametrize("place", ["", "/run/0"])
def test_a_wrong_tag_is_refused_when_the_file_is_loaded(tags, code, where, place, tmp_path):
    """With its place, once, whatever the number of routes."""
    (tmp_path / "m.yaml").write_text("")
    route = f"{{mapping: m.yaml, tags: {tags}}}" if place else "{mapping: m.yaml}"
    text = PIPELINE + ("" if place else f"tags: {tags}\n") + f"run: [{route}, {{mapping: m.yaml}}]\n"
    with pytest.raises(PipelineError) as error:
        parse_pipeline(text, file=tmp_path / "p.yaml", environ={"BACK": "a\\"})

    assert [(problem.code, problem.location.pointer) for problem in error.value.problems] == [(code, place + where)]


def test_tags_of_a_route_are_laid_over_those_of_the_file(tmp_path):
    """By name; a variable is a text, also under the name of a setting that is a number or a secret."""
    (tmp_path / "m.yaml").write_text("")
    text = PIPELINE + (
        'tags: {site: "${SITE}", batch_size: "${SITE}", token: open, verify: "${YES}"}\n'
        "run: [{mapping: m.yaml, tags: {token: own, yield: b}}, {mapping: m.yaml}]\n"
    )
    pipeline = parse_pipeline(text, file=tmp_path / "p.yaml", environ={"SITE": "007", "YES": "True"})
    common = {"batch_size": "007", "site": "007", "token": "open", "verify": "True"}

    assert [dict(route.tags) for route in pipeline.routes] == [{**common, "token": "own", "yield": "b"}, common]
    assert not pipeline.warnings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write a mapping with these tags and a pipeline that adds one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SITE", "nord 7")

    def write(tags: str) -> None:
        Path("m.yaml").write_text(DOCUMENT.format(tags=tags))
        Path("p.yaml").write_text(PIPELINE + 'tags: {site: "${SITE}"}\nrun: [{mapping: m.yaml}]\n')

    return write


def test_every_command_shows_the_lines_of_a_run(folder):
    """`run`, `dry-run --pipeline`, dead letters and their replay have the same tags; `dry-run` alone has none."""
    folder("[yield]")
    good, bad = '{"yield": "b", "def": 1, "at": 7}\n', '{"yield": "b", "def": "x", "at": 8}\n'
    Path("samples.ndjson").write_text(good)
    assert iggyflux("log", "append", "data", "while/größe", stdin=good + bad).code == 0
    assert iggyflux("run", "p.yaml", "--until-end", "--quiet").code == 0
    line = "lambda,site=nord\\ 7,yield=b def=1.0 7000000000\n"
    mended = line.replace("def=1.0 7", 'def="x" 8')
    plain = line.replace("site=nord\\ 7,", "")

    assert Path("points.lp").read_text() == line
    assert iggyflux("dry-run", "m.yaml", "samples.ndjson", "--pipeline", "p.yaml").out == line
    assert iggyflux("dry-run", "m.yaml", "samples.ndjson").out == plain
    Path("m.yaml").write_text(DOCUMENT.format(tags="[yield]").replace("{def: def}", "{def: {expr: def, type: string}}"))
    assert iggyflux("replay", "dead", "--pipeline", "p.yaml", "--dry-run").out == mended
    assert iggyflux("replay", "dead", "--pipeline", "p.yaml").code == 0
    assert Path("points.lp").read_text() == line + mended


def test_other_tags_are_another_plan(folder, monkeypatch):
    """Its identity is in dead letters, so a replay from another site says so."""
    folder("[yield]")
    assert iggyflux("log", "append", "data", "while/größe", stdin='{"yield": "b", "def": "x", "at": 8}\n').code == 0
    assert iggyflux("run", "p.yaml", "--until-end", "--quiet").code == 0
    plans = {
        json.loads(line)["plan"] for file in Path("dead").glob("*.ndjson") for line in file.read_text().splitlines()
    }

    shown = iggyflux("explain", "m.yaml", "--pipeline", "p.yaml").out
    assert [f"plan {each}: dialect v2, precision ns, the tags of p.yaml\n" in shown for each in plans] == [True]
    alone = iggyflux("explain", "m.yaml").out
    assert [each in alone for each in plans] == [False]
    assert "dialect v2, precision ns, no tags (--pipeline FILE: those of a run)\n" in alone
    assert "IFX718" not in iggyflux("replay", "dead", "--pipeline", "p.yaml", "--dry-run").err
    monkeypatch.setenv("SITE", "süd")
    assert "IFX718" in iggyflux("replay", "dead", "--pipeline", "p.yaml", "--dry-run").err


def test_explain_names_them_in_the_identity_of_a_point(folder):
    """And as what they are: a constant, or the default of the mapping's tag."""
    folder("[yield]")
    shown = iggyflux("explain", "m.yaml", "--pipeline", "p.yaml").out
    assert 'constant "nord 7"  of the pipeline' in shown
    assert "identified by its measurement, the tags site, yield," in shown
    folder("{site: class}")
    shown = iggyflux("explain", "m.yaml", "--pipeline", "p.yaml").out
    assert 'default "nord 7"' in shown
    assert "identified by its measurement, the tags site, and" in shown


def test_a_field_of_that_name_is_refused_before_the_start(folder):
    """No point may have a tag and a field of one name."""
    folder("[yield]")
    Path("p.yaml").write_text(PIPELINE + "tags: {def: x}\nrun: [{mapping: m.yaml}]\n")
    outcome = iggyflux("run", "p.yaml", "--until-end")

    assert outcome.code == 1
    assert "error[IFX826]: 'def' is a tag of the pipeline and a field of 'm'" in outcome.err


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ("[{mapping: other.yaml}]", "p.yaml has no route for m.yaml"),
        ("[{mapping: m.yaml}, {mapping: m.yaml, name: b, tags: {x: y}}]", "have different tags: run[0], run[1]"),
    ],
)
@pytest.mark.parametrize("command", ["dry-run", "explain"])
def test_a_pipeline_that_does_not_say_the_tags_is_a_wrong_usage(folder, command, routes, words):
    """Lines with tags that no run gives would mislead."""
    folder("[yield]")
    Path("other.yaml").write_text(DOCUMENT.format(tags="[]"))
    Path("p.yaml").write_text(PIPELINE + f"run: {routes}\n")
    outcome = iggyflux(command, "m.yaml", "--pipeline", "p.yaml")

    assert outcome.code == 2
    assert words in outcome.err
