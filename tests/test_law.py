"""The law: the compiled plan equals the reference plan, in lines, origins, failures, skips and order."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import HealthCheck, assume, event, given, seed, settings
from hypothesis import strategies as st

from iggyflux import MappingError, Message, parse_mapping
from iggyflux.reads import Reads
from tests.strategies import cases, compiled, pipeline_tags


def outcome(rendered):
    """Return all that both plans must agree on; the times that a plan keeps are those of its lines."""
    if rendered.times is not None:
        assert list(rendered.times) == [int(line.rpartition(" ")[2]) for line in rendered.lines]
    parts = ("lines", "origins", "failures", "skipped", "empty", "omitted", "undeclared")
    return [*(list(getattr(rendered, part)) for part in parts), list(rendered.buckets or ())]


FEW, EXAMPLES = 80, 250


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("part", "examples"),
    [
        (0, FEW),
        *(pytest.param(part, EXAMPLES, marks=pytest.mark.slow) for part in range(1, 4)),
        pytest.param(4, 100_000, marks=pytest.mark.long, id="long"),
    ],
)
def test_compiled_equals_reference(part, examples):
    """For every document, every batch, each dialect and each precision; in parts, so that they run in parallel."""

    @seed(part)
    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(
        cases(),
        st.sampled_from(["v1", "v2", "v3"]),
        st.sampled_from(["ns", "us", "ms", "s"]),
        st.data(),
    )
    def law(case, dialect, precision, data):
        document, batches = case
        try:
            mapping = compiled(document)
        except MappingError:
            event("document refused")
            assume(False)
        if any("spread" in point.get("timestamp", {}) for point in document["points"]):
            precision = "ns"
        tags = data.draw(st.one_of(st.just({}), pipeline_tags(document, batches)))
        plan = mapping.plan("compiled", dialect=dialect, precision=precision, tags=tags)
        reference = mapping.plan("reference", dialect=dialect, precision=precision, tags=tags)
        event("with buckets" if mapping.writer.chooses_bucket else "without buckets")
        event("with tags of the pipeline" if tags else "without")
        event("static" if "Struct, gc=False" in plan.source else "dynamic" if plan.source else "not compiled")
        for batch in batches:
            expected = outcome(reference.render(batch))

            assert outcome(plan.render(batch)) == expected
            settled = (
                set(expected[1]) | {failure.index for failure in expected[2]} | set(expected[3]) | set(expected[4])
            )
            assert settled == set(range(len(batch)))

    law()


@settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(["json"]))
def test_a_result_does_not_depend_on_how_much_is_decoded(case):
    """A plan decodes what the mapping reads; what it says of a message is what it would say of all of it."""
    document, batches = case
    try:
        plan = compiled(document).plan("reference")
        whole = compiled(document).plan("reference")
    except MappingError:
        assume(False)
    whole._reads = Reads.WHOLE
    for message in (message for batch in batches for message in batch):
        expected = outcome(whole.render([message]))
        if any(failure.location == "/from/payload" for failure in expected[2]):
            continue  # what is not read may be what no decoder takes

        assert outcome(plan.render([message])) == expected


def test_rendering_twice_gives_the_same(document_of_the_design):
    """A plan keeps no state between calls."""
    mapping = parse_mapping(document_of_the_design)
    batch = [
        Message(b'{"device":{"id":"d1"},"readings":[{"celsius":21.5,"count":3,"state":"ok","ts":1700000000000}]}')
    ] * 3
    plan = mapping.plan()

    assert outcome(plan.render(batch)) == outcome(plan.render(batch))
    assert plan.render(batch).lines == ['env,device=d1 count=3i,state="ok",temperature=21.5 1700000000000000000'] * 3


@pytest.fixture
def document_of_the_design():
    return """
iggyflux: 1
kind: writer
name: factory-env
from: {stream: factory, topic: readings, payload: json}
where: 'readings != `null`'
for_each: 'readings[]'
points:
  - measurement: {const: env}
    tags:
      device: root().device.id
      topic: meta('topic')
      tenant: header('tenant')
    fields:
      temperature: celsius
      count: {expr: count, type: integer, default: 0}
      state: {expr: state, type: string, required: true}
    timestamp: {expr: ts, format: unix_ms}
"""


@st.composite
def number_tokens(draw):
    """Return a number in JSON syntax of up to 22 digits, with or without fraction and exponent."""
    digits = draw(st.one_of(st.integers(0, 10**22), st.integers(2**53 - 50, 2**53 + 50), st.integers(2**63, 2**64)))
    text = str(digits)
    place = draw(st.integers(0, len(text)))
    whole, fraction = text[:place].lstrip("0") or "0", text[place:]
    token = draw(st.sampled_from(["", "-"])) + whole + (f".{fraction}" if fraction else "")
    if draw(st.booleans()):
        token += draw(st.sampled_from("eE")) + str(draw(st.integers(-22, 22)))
    return token


@pytest.mark.parametrize("wrapped", ["{}", '"{}"'], ids=["number", "string"])
@pytest.mark.parametrize("kind", ["integer", "unsigned", "string"])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(token=number_tokens())
def test_a_cast_never_changes_a_number(kind, wrapped, token):
    """Under `cast: true` a whole number is written exactly, or the record fails; both plans agree."""
    mapping = parse_mapping(
        "iggyflux: 1\nkind: writer\nname: n\nfrom: {stream: s, topic: t}\npoints:\n  measurement: {const: m}\n"
        f"  fields: {{self: {{expr: class, type: {kind}, cast: true}}}}\n"
    )
    message = Message(f'{{"class":{wrapped.format(token)}}}'.encode())
    rendered = mapping.plan("reference").render([message])

    assert outcome(mapping.plan("compiled").render([message])) == outcome(rendered)
    if rendered.lines and not (kind == "string" and not float(token).is_integer()):
        value = rendered.lines[0].split("self=")[1].split(" ")[0].strip('"iu')

        assert Decimal(value) == Decimal(token)


@pytest.mark.parametrize("star", [False, True], ids=["field", "star"])
def test_a_cast_never_changes_a_number_of_an_expression(star):
    """A literal is read as a double too; both plans reject the record."""
    source = "`9007199254740993.0`" if not star else '`{"lambda": 9007199254740993.0}`'
    name = '"*"' if star else "lambda"
    mapping = parse_mapping(
        "iggyflux: 1\nkind: writer\nname: n\nfrom: {stream: s, topic: t}\npoints:\n  measurement: {const: m}\n"
        f"  fields: {{{name}: {{expr: '{source}', type: integer, cast: true}}}}\n"
    )
    rendered = mapping.plan("reference").render([Message(b"{}")])

    assert outcome(mapping.plan("compiled").render([Message(b"{}")])) == outcome(rendered)
    assert ([*rendered.lines], [failure.code for failure in rendered.failures]) == ([], ["IFX342"])
