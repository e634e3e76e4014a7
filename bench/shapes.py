"""Rendering of many kinds of mapping, each beside the decoding of its payloads alone: a row far above it is a cliff.

The plan's own decoder is called.  CPU time, both in turns, so noise affects both; the ratio is what counts.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cbor2
import msgspec

from bench.plan import writer
from bench.table import Figure, best_seconds, show
from iggyflux import Message
from iggyflux.plan.compiled import CompiledPlan

_HEAD = "iggyflux: 1\nkind: writer\nname: shape\nfrom: {stream: works, topic: meters"
_SITE = "measurement: {const: meter}, tags: {site: site, meter: meter}"
_FIELDS = "fields: {volt: volt, amp: amp, watt: watt, wh: {expr: wh, type: integer}, mode: {expr: mode, type: string}}"


@dataclass(frozen=True)
class Shape:
    """A mapping and its payloads."""

    mapping: str
    make: Callable[[int], object]
    encode: Callable[[object], bytes] = msgspec.json.encode
    decode: Callable[[bytes], object] | None = None
    """What the row is compared with, where a plan decodes as it goes."""
    count: int = 2_000
    goal: float = 4.0
    """How many times its decoding it may take."""
    why: str = ""
    """Why it may take longer."""


def mapping(points: str, source: str = "", rest: str = "") -> str:
    """Return a mapping with these points, more keys of `from` and more keys."""
    return f"{_HEAD}{source}}}\n{rest}points:\n  - {{{points}}}\n"


def flat(number: int) -> dict[str, object]:
    """Eight values, five of which are fields."""
    return {
        "site": f"hall {number % 7}",
        "meter": f"m-{number % 400}",
        "volt": 229.5 + number % 11 / 8,
        "amp": number % 97 / 16,
        "watt": number % 4001 * 0.5,
        "wh": number * 17,
        "mode": "running",
        "at": 1_750_000_000_000 + number,
    }


def _time(form: str, source: str = "at") -> str:
    return mapping(f"{_SITE}, {_FIELDS}, timestamp: {{expr: {source}, format: {form}}}")


def _several(count: int) -> Callable[[int], object]:
    return lambda number: {"site": "s", "readings": [flat(number * count + inner) for inner in range(count)]}


_ELEMENTS = mapping(
    f"{_SITE.replace('site: site', 'site: root().site')}, {_FIELDS}, timestamp: {{expr: at, format: unix_ms}}",
    rest="for_each: 'readings[]'\n",
)
_MS = "timestamp: {expr: at, format: unix_ms}"
_EXACT = "the exact text is parsed: no library does it faster"

_TEXTS = "texts of five fields"
_REFERENCE = "the reference plan renders each that fails, to say why"
_REPEATS = "tags of the message are checked and written for each element"
_NAMES = "each name is looked up and ordered"

SHAPES: dict[str, Shape] = {
    "flat": Shape(mapping(f"{_SITE}, {_FIELDS}, {_MS}"), flat, goal=5, why=_TEXTS),
    "nested": Shape(
        mapping(
            "measurement: {const: meter}, tags: {site: a.site, meter: a.b.meter}, "
            "fields: {volt: a.b.c.volt, amp: a.b.c.amp}, timestamp: {expr: a.at, format: unix_ms}"
        ),
        lambda n: {"a": {"site": "s", "at": 1_750_000_000_000 + n, "b": {"meter": "m", "c": flat(n)}}},
    ),
    **{
        f"for_each of {count}": Shape(_ELEMENTS, _several(count), count=max(2_000 // count, 40), goal=6.5, why=_REPEATS)
        for count in (1, 10, 100)
    },
    "flatten of 20 keys": Shape(
        mapping(f"measurement: {{const: meter}}, tags: {{site: site}}, fields: {{'*': values}}, {_MS}"),
        lambda n: {"site": "s", "at": 1_750_000_000_000 + n, "values": {f"v{k}": n + k / 4 for k in range(20)}},
        goal=9,
        why=_NAMES,
    ),
    "3 points a message": Shape(
        f"{_HEAD}}}\npoints:\n"
        + "".join(
            f"  - {{measurement: {{const: {name}}}, tags: {{site: site}}, fields: {{{name}: {name}}}, {_MS}}}\n"
            for name in ("volt", "amp", "watt")
        ),
        flat,
        goal=12,
        why="three lines of each",
    ),
    "a measurement of each message": Shape(
        mapping(f"measurement: mode, tags: {{site: site}}, fields: {{volt: volt}}, {_MS}"),
        lambda n: {**flat(n), "mode": f"mode {n % 50}"},
        goal=5,
        why="each name is looked up",
    ),
    "tags of few values": Shape(mapping(f"{_SITE}, fields: {{volt: volt}}, {_MS}"), flat),
    "a tag of a new value each": Shape(
        mapping(f"{_SITE}, fields: {{volt: volt}}, {_MS}"), lambda n: {**flat(n), "meter": f"m-{n}"}
    ),
    "strings with escapes": Shape(
        mapping(f"{_SITE}, {_FIELDS}, {_MS}"),
        lambda n: {**flat(n), "mode": f'the "{n}"\\x', "site": f"a b,{n % 7}=c"},
        goal=5,
        why=_TEXTS,
    ),
    "strings of other scripts": Shape(
        mapping(f"{_SITE}, {_FIELDS}, {_MS}"),
        lambda n: {**flat(n), "mode": "läuft", "site": f"Größe {n % 7}"},
        goal=5,
        why="UTF-8 is checked",
    ),
    "nulls": Shape(
        mapping(f"{_SITE}, {_FIELDS}, {_MS}"),
        lambda n: {**flat(n), **({"amp": None} if n % 2 else {})},
        goal=7,
        why="the fields of each line are joined one by one",
    ),
    "functions": Shape(
        mapping(
            "measurement: {const: meter}, tags: {site: 'lower(site)', meter: \"split(meter, '-')[0]\"}, "
            f"fields: {{volt: 'round(volt)', power: 'multiply(volt, amp)'}}, {_MS}"
        ),
        flat,
        goal=25,
        why="each is interpreted",
    ),
    "a function of texts that repeat": Shape(
        mapping(
            f"measurement: {{const: meter}}, tags: {{site: 'upper(site)', meter: meter}}, fields: {{volt: volt}}, {_MS}"
        ),
        flat,
        goal=6,
        why="each text is evaluated once",
    ),
    "all members as tags and as fields": Shape(
        mapping(f"measurement: {{const: meter}}, tags: {{'*': about}}, fields: {{'*': values}}, {_MS}"),
        lambda n: {
            "about": {"site": f"hall {n % 7}", "meter": f"m-{n % 400}"},
            "values": {"volt": 229.5 + n % 11 / 8, "amp": n % 97 / 16, "watt": n % 4001 * 0.5},
            "at": 1_750_000_000_000 + n,
        },
        goal=14,
        why=_NAMES,
    ),
    "15 members, 3 of them there": Shape(
        mapping(
            f"measurement: {{const: meter}}, tags: {{site: site}}, "
            f"fields: {{{', '.join(f'f{k}: f{k}' for k in range(15))}}}, {_MS}"
        ),
        lambda n: {"site": "s", "at": 1_750_000_000_000 + n, **{f"f{(n + k) % 15}": n + k / 4 for k in range(3)}},
        goal=14,
        why="each column is looked through",
    ),
    "where drops 90 %": Shape(
        mapping(f"{_SITE}, {_FIELDS}, {_MS}", rest="where: 'keep == `true`'\n"),
        lambda n: {**flat(n), "keep": n % 10 == 0},
    ),
    "1 % of the messages fail": Shape(
        mapping(f"{_SITE}, {_FIELDS}, {_MS}"),
        lambda n: {**flat(n), **({"volt": "high"} if n % 100 == 0 else {})},
        goal=9,
        why=_REFERENCE,
    ),
    "5 values of 10 kB": Shape(
        mapping(f"{_SITE}, {_FIELDS}, {_MS}"),
        lambda n: {**flat(n), "rest": [{"name": f"n{k}", "value": k * 1.5} for k in range(330)]},
        count=300,
        goal=5,
        why="the depth is checked",
    ),
    "unix_s": Shape(_time("unix_s"), lambda n: {**flat(n), "at": 1_750_000_000 + n}, goal=5, why=_TEXTS),
    "unix_us": Shape(_time("unix_us"), lambda n: {**flat(n), "at": 1_750_000_000_000_000 + n}, goal=5, why=_TEXTS),
    "unix_ns": Shape(_time("unix_ns"), lambda n: {**flat(n), "at": 1_750_000_000_000_000_000 + n}, goal=5, why=_TEXTS),
    "unix_s with fractions": Shape(
        _time("unix_s"), lambda n: {**flat(n), "at": 1_750_000_000.125 + n}, goal=10, why=_EXACT
    ),
    "rfc3339": Shape(
        _time("rfc3339"),
        lambda n: {**flat(n), "at": f"2026-07-{n % 28 + 1:02d}T12:00:{n % 60:02d}.5Z"},
        goal=8,
        why=_EXACT,
    ),
    "a pattern": Shape(
        _time("'%d.%m.%Y %H:%M:%S', timezone: Europe/Berlin"),
        lambda n: {**flat(n), "at": f"{n // 3600 + 1:02d}.07.2026 12:{n // 60 % 60:02d}:{n % 60:02d}"},
        count=6_000,  # more than are remembered
        goal=30,
        why=_EXACT,
    ),
    "a pattern, 10 messages a second": Shape(
        _time("'%d.%m.%Y %H:%M:%S', timezone: Europe/Berlin"),
        lambda n: {**flat(n), "at": f"{n // 36000 + 1:02d}.07.2026 12:{n // 600 % 60:02d}:{n // 10 % 60:02d}"},
        count=60_000,
        goal=8,
        why=_EXACT,
    ),
    "msgpack": Shape(mapping(f"{_SITE}, {_FIELDS}, {_MS}", ", payload: msgpack"), flat, msgspec.msgpack.encode),
    "cbor": Shape(mapping(f"{_SITE}, {_FIELDS}, {_MS}", ", payload: cbor"), flat, cbor2.dumps),
    "csv": Shape(
        mapping(f"{_SITE}, fields: {{volt: {{expr: volt, cast: true}}}}, {_MS}", ", payload: csv", "for_each: '@'\n"),
        lambda n: (
            "site,meter,volt,at\n" + "".join(f"hall 1,m-2,229.5,{1_750_000_000_000 + n + k}\n" for k in range(20))
        ),
        lambda text: str(text).encode(),
        decode=lambda payload: list(csv.DictReader(io.StringIO(payload.decode()))),
        count=200,
        goal=7,
        why="against csv.DictReader",
    ),
}


def measure(name: str, shape: Shape) -> Figure:
    """Return the time of rendering a line of this shape, and the ratio to decoding alone."""
    payloads = [shape.encode(shape.make(number)) for number in range(shape.count)]
    messages = [Message(payload, offset=number) for number, payload in enumerate(payloads)]
    of = writer(shape.mapping)
    plan, reference = of.plan(), of.plan("reference")
    assert isinstance(plan, CompiledPlan)
    assert plan.reason is None, (name, plan.reason)
    rendered = plan.render(messages)
    assert rendered == reference.render(messages), name
    assert rendered.fallback is None
    decode = shape.decode or plan._decode  # noqa: SLF001
    good = [payloads[index] for index in sorted({*range(shape.count)} - {each.index for each in rendered.failures})]
    quick, bare = best_seconds([partial(plan.render, messages), lambda: list(map(decode, good))], 9, time.process_time)
    lines = max(len(rendered.lines), 1)
    return Figure(
        name + (f" ({shape.why})" if shape.why else ""),
        quick * 1e6 / lines,
        "µs/line",
        "its decoding",
        quick / bare,
        f"≤ {shape.goal:g}",
        quick / bare <= shape.goal,
    )


def main() -> None:
    show("rendering by the kind of mapping", [measure(name, shape) for name, shape in SHAPES.items()])


if __name__ == "__main__":
    main()
