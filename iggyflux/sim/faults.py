"""Injected faults: what goes wrong with a request, when, and how often.

A fault is data.  Which faults apply to a request is decided here, in order, under one lock, from counters and a seeded
generator, so that a run can be repeated.  The server applies them.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from iggyflux.errors import IggyfluxError, closest

KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "status": (
        "answer with `status`",
        frozenset(("status", "body", "text", "retry_after", "retry_after_form", "headers", "stored", "early")),
    ),
    "latency": ("wait `seconds` before anything else", frozenset(("seconds",))),
    "reset": ("break the connection `when`: before, during or after the body", frozenset(("when", "stored"))),
    "truncate": ("send only the first `bytes` of the answer, then break the connection", frozenset(("bytes",))),
    "splice": (
        "send the body up to the last line end within `bytes`, then `text`, and end it cleanly",
        frozenset(("bytes", "text")),
    ),
    "drip": ("send the answer slowly, `bytes` each `seconds`", frozenset(("bytes", "seconds"))),
    "too_large": ("refuse bodies over `bytes` as the dialect does", frozenset(("bytes",))),
    "duplicate": ("take the request twice, answer once", frozenset()),
    "killer": ("break every connection when a line contains `text`, storing nothing", frozenset(("text",))),
    "down": ("break every connection and refuse new ones for `seconds`", frozenset(("seconds",))),
}
"""The effect of each kind, and the keys that belong to it."""
MATCH_KEYS = frozenset(("kind", "times", "skip", "on", "path"))
WHENS = ("before", "during", "after")
BODIES = ("own", "text", "json", "html", "empty")
TARGETS = ("write", "query", "other", "any")
NON_FINAL = frozenset(("latency", "drip", "duplicate"))


class ScenarioError(IggyfluxError):
    """An invalid fault or scenario; the message says what was expected."""

    code = "IFX750"


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault and the requests that it applies to.

    These are the next `times` (None: all) requests of kind `on` whose path begins with `path`, after `skip` of them.
    `KINDS` says which other keys belong to which kind.
    """

    kind: str
    times: int | None = 1
    skip: int = 0
    on: str = "write"
    path: str = ""
    status: int = 503
    body: str = "own"
    text: str = ""
    retry_after: float | None = None
    retry_after_form: str = "seconds"
    headers: Mapping[str, str] = field(default_factory=dict)
    stored: bool = False
    early: bool = False
    seconds: float = 1.0
    when: str = "after"
    bytes: int = 0

    def __post_init__(self) -> None:
        _choose("kind", self.kind, tuple(KINDS))
        _choose("on", self.on, TARGETS)
        _choose("when", self.when, WHENS)
        _choose("body", self.body, BODIES)
        _choose("retry_after_form", self.retry_after_form, ("seconds", "date"))
        if self.kind == "status" and not 200 <= self.status <= 599:
            raise ScenarioError(f"status: expected 200 to 599, found {self.status}")
        if self.kind in ("too_large", "drip") and self.bytes <= 0:
            raise ScenarioError(f"{self.kind}: expected `bytes` above 0, found {self.bytes}")
        if self.kind == "killer" and not self.text:
            raise ScenarioError("killer: expected `text`, a part of the lines that break the connection")
        if not math.isfinite(self.seconds):
            raise ScenarioError(f"{self.kind}: expected a finite number of `seconds`, found {self.seconds}")
        if self.seconds < 0 or self.skip < 0 or (self.times is not None and self.times < 0):
            raise ScenarioError(f"{self.kind}: `seconds`, `skip` and `times` cannot be negative")

    def as_dict(self) -> dict[str, Any]:
        """Return the fault as a scenario file has it."""
        relevant = MATCH_KEYS | KINDS[self.kind][1]
        return {key: value for key, value in asdict(self).items() if key in relevant}


@dataclass(frozen=True, slots=True)
class Chaos:
    """Random faults: each write draws one of `kinds` with probability `rate`, from a generator with the seed `seed`.

    At most `times` are drawn in all.  `max_seconds` bounds every wait.
    """

    seed: int = 0
    rate: float = 0.1
    kinds: tuple[str, ...] = ("status", "reset", "latency", "truncate", "duplicate")
    times: int | None = None
    max_seconds: float = 0.05

    def __post_init__(self) -> None:
        for kind in self.kinds:
            _choose("kinds", kind, tuple(_DRAWS))
        if not 0 <= self.rate <= 1:
            raise ScenarioError(f"rate: expected 0 to 1, found {self.rate}")


@dataclass(frozen=True, slots=True)
class RequestFaults:
    """The faults of one request, in the order in which they apply."""

    faults: tuple[Fault, ...] = ()

    def of(self, kind: str) -> Fault | None:
        """Return the fault of this kind, or None."""
        return next((fault for fault in self.faults if fault.kind == kind), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the kinds, for the record."""
        return tuple(fault.kind for fault in self.faults)


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int | None
    skip: int


class Faults:
    """The armed faults.  Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._chaos: Chaos | None = None
        self._random = random.Random(0)  # noqa: S311 (repeatable, not secret)
        self._drawn = 0

    def add(self, *faults: Fault) -> None:
        """Arm faults, after those that are armed."""
        with self._lock:
            self._armed += [_Armed(fault, fault.times, fault.skip) for fault in faults]

    def unleash(self, chaos: Chaos | None) -> None:
        """Begin random faults, or end them."""
        with self._lock:
            self._chaos = chaos
            self._random = random.Random(chaos.seed if chaos else 0)  # noqa: S311 (repeatable, not secret)
            self._drawn = 0

    def clear(self) -> None:
        """Disarm everything."""
        with self._lock:
            self._armed.clear()
        self.unleash(None)

    def pending(self) -> list[dict[str, Any]]:
        """Return the armed faults, with their remaining counts."""
        with self._lock:
            return [{**armed.fault.as_dict(), "times": armed.left, "skip": armed.skip} for armed in self._armed]

    def draw_for(self, kind: str, path: str) -> RequestFaults:
        """Return the faults for a request of this kind, and count them down."""
        with self._lock:
            taken: list[Fault] = []
            for armed in self._armed:
                if not _matches(armed.fault, kind, path):
                    continue
                if armed.skip:
                    armed.skip -= 1
                    continue
                if armed.left is not None:
                    armed.left -= 1
                taken.append(armed.fault)
                if armed.fault.kind not in NON_FINAL and armed.fault.kind not in ("killer", "too_large"):
                    break
            self._armed = [armed for armed in self._armed if armed.left is None or armed.left > 0]
            if not taken and self._chaos is not None and kind == "write":
                taken += self._draw(self._chaos)
            return RequestFaults(tuple(taken))

    def _draw(self, chaos: Chaos) -> list[Fault]:
        if chaos.times is not None and self._drawn >= chaos.times:
            return []
        if self._random.random() >= chaos.rate:
            return []
        self._drawn += 1
        return [_DRAWS[self._random.choice(chaos.kinds)](self._random, chaos)]


def _matches(fault: Fault, kind: str, path: str) -> bool:
    return fault.on in ("any", kind) and path.startswith(fault.path)


def _draw_status(generator: random.Random, chaos: Chaos) -> Fault:
    status = generator.choice((429, 500, 502, 503, 504))
    wait = (
        round(generator.random() * chaos.max_seconds, 3) if status in (429, 503) and generator.random() < 0.5 else None
    )
    body = generator.choice(("own", "text", "html", "empty"))
    return Fault("status", status=status, body=body, retry_after=wait, stored=generator.random() < 0.3)


def _draw_reset(generator: random.Random, _: Chaos) -> Fault:
    return Fault("reset", when=generator.choice(WHENS), stored=generator.random() < 0.5)


_DRAWS: dict[str, Callable[[random.Random, Chaos], Fault]] = {
    "status": _draw_status,
    "reset": _draw_reset,
    "latency": lambda generator, chaos: Fault("latency", seconds=generator.random() * chaos.max_seconds),
    "truncate": lambda generator, _: Fault("truncate", bytes=generator.randrange(60)),
    "duplicate": lambda _, __: Fault("duplicate"),
    "drip": lambda generator, chaos: Fault("drip", bytes=generator.randrange(1, 40), seconds=chaos.max_seconds / 10),
    "down": lambda generator, chaos: Fault("down", seconds=generator.random() * chaos.max_seconds),
    "too_large": lambda generator, _: Fault("too_large", bytes=generator.randrange(1_000, 100_000)),
}


def parse_fault(text: str) -> Fault:
    """Return a fault from `KIND` or `KIND:KEY=VALUE,KEY=VALUE`; values are numbers, true, false, null or text.

    Raise `ScenarioError`.
    """
    kind, _, rest = text.partition(":")
    item: dict[str, object] = {"kind": kind.strip()}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise ScenarioError(f"{text}: expected KEY=VALUE, found {part!r}")
        item[key.strip()] = _plain_value(value.strip())
    return _read_fault(item, 0, place=text)


def _plain_value(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


_WORDS: dict[str, object] = {"true": True, "false": False, "null": None}


def read_faults(tree: object) -> list[Fault]:
    """Return faults from a plain tree: one object or a list.  Raise `ScenarioError`."""
    items = tree if isinstance(tree, list) else [tree]
    return [_read_fault(item, index) for index, item in enumerate(items)]


def read_scenario(tree: object) -> tuple[list[Fault], Chaos | None]:
    """Return the faults and random faults of a scenario: `{faults: […], random: {…}}`.  Raise `ScenarioError`."""
    if not isinstance(tree, Mapping):
        raise ScenarioError(f"scenario: expected an object with `faults` or `random`, found {type(tree).__name__}")
    _check_keys("scenario", tree, ("faults", "random"))
    drawn = tree.get("random")
    chaos = None
    if drawn is not None:
        if not isinstance(drawn, Mapping):
            raise ScenarioError("random: expected an object")
        names = tuple(item.name for item in fields(Chaos))
        _check_keys("random", drawn, names)
        _check_types("random", drawn, Chaos())
        chaos = Chaos(**{**drawn, "kinds": tuple(drawn.get("kinds", Chaos().kinds))})
    faults = tree.get("faults") or []
    if not isinstance(faults, list):
        raise ScenarioError("faults: expected a list")
    return read_faults(faults), chaos


def _read_fault(item: object, index: int, place: str | None = None) -> Fault:
    place = place or f"faults[{index}]"
    if not isinstance(item, Mapping):
        raise ScenarioError(f"{place}: expected an object, found {type(item).__name__}")
    kind = item.get("kind")
    if not isinstance(kind, str):
        raise ScenarioError(f"{place}: expected `kind`, one of {', '.join(KINDS)}")
    _choose(f"{place}.kind", kind, tuple(KINDS))
    _check_keys(place, item, tuple(sorted(MATCH_KEYS | KINDS[kind][1])))
    _check_types(place, item, Fault("latency"))
    try:
        return Fault(**item)
    except ScenarioError as exc:
        raise ScenarioError(f"{place}: {exc}") from exc


def _check_types(place: str, item: Mapping[str, Any], default: Fault | Chaos) -> None:
    for key, value in item.items():
        expected = getattr(default, key)
        if expected is None:  # times, retry_after
            good = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        elif key == "times":
            good = value is None or (isinstance(value, int) and not isinstance(value, bool))
        elif isinstance(expected, bool):
            good = isinstance(value, bool)
        elif isinstance(expected, float):
            good = isinstance(value, int | float) and not isinstance(value, bool)
        elif isinstance(expected, int):
            good = isinstance(value, int) and not isinstance(value, bool)
        elif isinstance(expected, tuple):
            good = isinstance(value, list | tuple)
        else:
            good = isinstance(value, Mapping if isinstance(expected, Mapping) else str)
        if not good:
            raise ScenarioError(f"{place}.{key}: found {value!r}")


def _check_keys(place: str, item: Iterable[str], known: Sequence[str]) -> None:
    for key in item:
        _choose(place, key, known)


def _choose(place: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        near = closest(str(word), known)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise ScenarioError(f"{place}: expected one of {', '.join(known)}, found {word!r}{hint}")
