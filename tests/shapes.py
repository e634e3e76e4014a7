"""Documents drawn through the schema, with payloads as products write them: what must hold for each, and a long run.

    .venv/bin/python -m tests.shapes 0 100000

checks the examples of the seeds from 0 to 99,999 and prints how far it is, and each seed that fails.  A seed gives the
same example each time, so a run can be divided and continued.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from iggyflux import Mapping, MappingError, Message, parse_lines
from iggyflux.documents.nodes import Document, Node
from iggyflux.lineprotocol import Unsigned
from iggyflux.mapping import compile_document
from iggyflux.records import Rendered, Row
from tests.forms import UNKNOWN, Form, Payload, vocabulary_of
from tests.independent_evaluation import UNITS, records, settled
from tests.payload_forms import FORMATS, form_of
from tests.payload_shapes import SHAPES, Members, Token, containers, parse
from tests.schema_documents import document_of, is_one_in
from tests.test_law import outcome
from tests.test_reader_law import outcome as reader_outcome

Tally = Counter[str]


def parsed(document: dict[str, Any], tally: Tally, files: dict[str, bytes] | None = None) -> Mapping | None:
    """Return a mapping, which has the content of `files` by their names; None for a document that is refused.

    The tree is compiled as it is: reading YAML would take half of the time.
    """
    text = json.dumps(document)
    try:
        root = Node(document, 0, len(text))
        mapping = compile_document(Document(document, text, None, "yaml", root, files=files or {}))
    except MappingError:
        tally["refused"] += 1
        return None
    tally["documents"] += 1
    return mapping


def batch_of(form: Form, random: Random, most: int) -> list[Payload]:
    """Return ordinary payloads, and mutated ones among them."""
    return [
        form.ordinary(random) if is_one_in(2, random) else form.mutated(random) for _ in range(random.randint(1, most))
    ]


def messages_of(payloads: Sequence[Payload]) -> list[Message]:
    """Return a message for each payload."""
    return [
        Message(payload.data, "factory", "readings", number % 3, 7 + number, 1_700_000_000_000_000)
        for number, payload in enumerate(payloads)
    ]


def compiled_of(mapping: Mapping, tally: Tally, **options: str) -> Any:
    """Return the compiled plan, which counts the messages that it leaves to the reference plan."""
    plan: Any = mapping.plan("compiled", **options)
    render_message = plan.reference.render_message

    def counted(*given: Any) -> Rendered:
        tally["by reference"] += 1
        return render_message(*given)  # type: ignore[no-any-return]

    plan.reference.render_message = counted
    return plan


def rendered_by(plan: Any, batch: Sequence[Message], tally: Tally) -> Rendered:
    """Return what the compiled plan makes of a batch.  Raise AssertionError if its code failed."""
    rendered: Rendered = plan.render(batch)
    if rendered.fallback is not None:
        raise AssertionError(f"generated code failed: {rendered.fallback}")
    tally["records"] += len(batch)
    tally["lines"] += len(rendered.lines)
    tally["failures"] += len(rendered.failures)
    return rendered


def check_plans(random: Random, tally: Tally, most: int = 5) -> None:
    """Both plans make the same of a batch."""
    form = form_of(random.choice(FORMATS), random.choice(sorted(SHAPES)), random)
    mapping = parsed(document_of("writer", form.vocabulary, random, form.payload, form.for_each), tally, form.files)
    if mapping is None:
        return
    dialect, precision = random.choice(["v1", "v2", "v3"]), random.choice(["ns", "us", "ms", "s"])
    if '"spread"' in mapping.document.text:
        precision = "ns"  # the only one that has room for it
    compiled = compiled_of(mapping, tally, dialect=dialect, precision=precision)
    reference = mapping.plan("reference", dialect=dialect, precision=precision)
    for _ in range(random.randint(1, 2)):
        batch = messages_of(batch_of(form, random, most))

        assert outcome(rendered_by(compiled, batch, tally)) == outcome(reference.render(batch))


# --- against an independent evaluation ---

_FORMS = [
    "{0}", "{0}", "{0}", "{0}", "{0} || {1}", "{0} && {1}", "not_null({0}, {1})", "{0} == {1}", "{0} != `null`",
    "{0} > `1`", "!{0}", "length({0})", "[{0}, {1}][1]", "{0}[0]", "{0}[-1]", "{0}[?@ != `null`] | [0]",
    "{0}[*] | [1]", "`7`", "'x'", "contains({0}, 'x')", "starts_with({0}, '2')", "join('-', [{0}, {0}])",
    "{{a: {0}}}.a", "@.{0}", "{0} <= {1}",
]  # fmt: skip
_SOUND_FORMS = ["{0}", "{0}", "{0}", "{0} || {1}", "not_null({0}, {1})", "{0} == {1}", "'x'", "@.{0}"]
_STARS: list[dict[str, Any]] = [
    {}, {"flatten": "_"}, {"flatten": "_"}, {"flatten": "."}, {"flatten": "_", "include": ["*e*", "*T*"]},
    {"include": ["*e*"]}, {"flatten": "_", "exclude": ["*_*", "[a-m]*"]}, {"exclude": ["*a*", "*l*"]},
]  # fmt: skip
_TAGS, _FIELDS = ["über", "Drehzahl [1/min]", "class", "a,b"], ["lambda", "日本", "a=b", "x y", "_"]
_ANY_TYPE = ["auto", "payload"]
_DEFAULTS = {
    "float": 1.5,
    "integer": -7,
    "unsigned": 2**64 - 1,
    "string": 'say "hi"',
    "boolean": True,
    "auto": 2.5,
    "payload": 7,
}


def plain_document(form: Form, random: Random) -> dict[str, Any]:
    """Return a document in the part of the language that `independent_evaluation` knows.

    Half of them are sound: ordinary messages give points.  Those with a `"*"` have plain paths only, since of others it
    takes an analysis to know what they use.
    """
    paths = form.vocabulary.paths
    is_sound, has_star = is_one_in(2, random), is_one_in(4, random)
    steady = [path for path in paths if path.startswith(('"', "fields", "tags", "time"))] or ["nothing"]

    def expression() -> str:
        if has_star:
            return random.choice(steady)
        expr = random.choice(_SOUND_FORMS if is_sound else _FORMS)
        return expr.format(random.choice(paths), random.choice(paths)).replace("@.@", "@")

    document: dict[str, Any] = {"iggyflux": 1, "kind": "writer", "from": {"stream": "s", "topic": "t"}}
    document["from"]["payload"] = form.payload
    if is_one_in(5, random):
        document["from"]["on_bad_value"] = "omit"
    document |= {"collisions": random.choice(["error", "merge", "keep_last"]), "name": "shapes"}
    point: dict[str, Any] = {"measurement": {"const": "m"}, "tags": {}, "fields": {}}
    for key in random.sample(_TAGS, random.randint(0, 3)):
        options: dict[str, Any] = random.choice([{}, {"required": True}, {"default": "none"}])
        point["tags"][key] = expression() if is_one_in(2, random) else {"expr": expression(), **options}
    for key in random.sample(_FIELDS, random.randint(1, 4)):
        expr = expression()
        has_any_type = expr in paths and not is_sound
        point["fields"][key] = {"expr": expr, **_options(list(_DEFAULTS) if has_any_type else _ANY_TYPE, random)}
    if has_star:
        wholes = [path for path in steady if any(other.startswith(f"{path}.") for other in paths)]
        point["fields"]["*"] = {"expr": random.choice(["@", "@", "@", *wholes]), **random.choice(_STARS)}
        if is_one_in(2, random):
            kind = random.choice(["auto", *_DEFAULTS, "payload"])
            point["fields"]["*"] |= {"type": kind, **({} if kind == "payload" else {"cast": True})}
        if is_one_in(4, random):
            point["fields"]["*"] |= {"on_bad_value": "omit"}
    point["timestamp"] = _time(paths, is_sound and not is_one_in(4, random), random)
    for place in (document, point):
        if is_one_in(8, random) and not is_sound:
            place["where"] = expression()
    if lists := _lists(form, is_sound, random):
        holder = point if is_one_in(4, random) else document
        holder["for_each"] = lists if len(lists) > 1 else lists[0]
    return {**document, "points": point}


def _lists(form: Form, is_sound: bool, random: Random) -> list[str]:
    """Return the expressions of a `for_each`: most often one or none."""
    lists, path = [], random.choice(form.vocabulary.paths)
    if form.for_each is not None and (is_sound or not is_one_in(4, random)):
        lists.append(form.for_each)
    elif is_one_in(4, random) and not is_sound:
        lists.append(random.choice([f"{path}[]", path, "[@, @]"]))
    if is_one_in(8, random):
        lists.append(random.choice(["[@]", "[@, @]", "[]", path]))
    return lists


def _options(kinds: Sequence[str], random: Random) -> dict[str, Any]:
    """Return what a field says of its values."""
    kind = random.choice(kinds)
    options = {"type": kind, **random.choice([{}, {"required": True}, {"default": _DEFAULTS[kind]}, {}])}
    if is_one_in(3, random) and kind != "payload":
        options["cast"] = random.choice([True, True, "numbers"]) if kind == "auto" else True
    if is_one_in(5, random):
        options["on_bad_value"] = random.choice(["omit", "fail"])
    return options


def _time(paths: Sequence[str], is_sound: bool, random: Random) -> dict[str, str]:
    """Return a timestamp, in most documents of a path whose last name may be that of a time."""
    named = [path for path in paths if any(word in path for word in ("ime", "t", "T", "E", "date", "At"))]
    kind = random.choice([*UNITS, "rfc3339", "rfc3339"])
    if is_sound or not named or is_one_in(4, random):
        return {"expr": "`1700000000`", "format": random.choice(list(UNITS))}
    return {"expr": random.choice(named), "format": kind}


def found_points(lines: Sequence[str]) -> dict[tuple[Any, ...], Any]:
    """Return the fields of points by measurement, tags and time."""
    kinds = {bool: "boolean", str: "string", int: "integer", float: "float", Unsigned: "unsigned"}
    return {
        (point.measurement, tuple(sorted(point.tags.items())), point.timestamp_ns): {
            key: (kinds[type(value)], repr(value) if type(value) is float else value)
            for key, value in point.fields.items()
        }
        for point in parse_lines("\n".join(lines).encode(), dialect="v2")
    }


def check_values(random: Random, tally: Tally, most: int = 3) -> None:
    """The points of a message are those of an independent evaluation, whatever is in its batch."""
    form = form_of(random.choice(FORMATS), random.choice(sorted(SHAPES)), random)
    ordinary = form.ordinary(random)
    for _ in range(10):  # until ordinary messages give points
        document = plain_document(form, random)
        if any(isinstance(record, tuple) for record in records(document, ordinary.value)):
            break
    mapping = parsed(document, tally, form.files)
    if mapping is None:
        return
    payloads = batch_of(form, random, most)
    rendered = rendered_by(compiled_of(mapping, tally), messages_of(payloads), tally)
    for index, payload in enumerate(payloads):
        if payload.value is UNKNOWN:
            continue
        tally["values"] += 1
        expected = records(document, payload.value)
        points, failed = settled(document["collisions"], expected)
        failures = [failure for failure in rendered.failures if failure.index == index]
        lines = [line for line, origin in zip(rendered.lines, rendered.origins, strict=True) if origin == index]

        assert found_points(lines) == points, payload
        assert sum(failure.count for failure in failures) == failed + payload.bad_lines, (payload, failures, expected)


# --- readers ---


def rows_of(shape: str, random: Random, most: int) -> list[Row]:
    """Return rows whose columns are the members of a shape's objects."""
    objects = [tree for tree in containers(parse(SHAPES[shape])) if isinstance(tree, Members)]
    made = []
    for _ in range(random.randint(1, most)):
        columns: dict[str, Any] = {"time": random.choice([0, 2**62, random.randrange(2**61)])}
        for key, value in random.choice(objects):
            columns[key] = (
                json.loads(value) if isinstance(value, Token) else value if isinstance(value, str | bool) else None
            )
        made.append(Row(columns, random.choice(["m", "Müller, 1"]), random.choice([None, (0, 2**62)])))
    return made


def check_readers(random: Random, tally: Tally, most: int = 4) -> None:
    """Both plans of a reader make the same of rows."""
    shape = random.choice(sorted(SHAPES))
    mapping = parsed(document_of("reader", vocabulary_of(parse(SHAPES[shape])), random), tally)
    if mapping is None:
        return
    batch = rows_of(shape, random, most)
    rendered: Any = mapping.plan("compiled").render(batch)
    if rendered.fallback is not None:
        raise AssertionError(f"generated code failed: {rendered.fallback}")
    tally["records"] += len(batch)

    assert reader_outcome(rendered) == reader_outcome(mapping.plan("reference").render(batch))


# --- a long run ---

_CHECKS: list[Callable[[Random, Tally, int], None]] = [
    check_plans,
    check_plans,
    check_values,
    check_values,
    check_readers,
]
_MOST = 20
"""Messages of a batch, at most."""


def main() -> int:
    """Check the examples of a range of seeds."""
    parser = argparse.ArgumentParser(prog="tests.shapes")
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("stop", type=int, help="the seed after the last one")
    options = parser.parse_args()
    tally: Tally = Counter()
    for seed in range(options.first, options.stop):
        random = Random(seed)
        try:
            random.choice(_CHECKS)(random, tally, _MOST)
        except Exception:
            tally["wrong"] += 1
            print(f"seed {seed}\n{traceback.format_exc()[-3000:]}", flush=True)
        if seed % 1000 == 999:
            print(f"{time.strftime('%H:%M:%S')} to {seed}: {dict(tally)}, {time.process_time():.0f} s", flush=True)
    print(f"seeds {options.first} to {options.stop - 1}: {dict(tally)}")
    return int(tally["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
