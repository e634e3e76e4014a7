"""The compiled plan: decode a batch, run the generated code, and render what it does not handle by the reference plan.

It equals the reference plan in lines, origins, failures, skips and order, and is faster by an order of magnitude.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import msgspec

from iggyflux.errors import RecordError
from iggyflux.expressions import Expression
from iggyflux.expressions.lowering import Interpreted
from iggyflux.lineprotocol import Dialect, Precision
from iggyflux.payloads import FORMATS, expand
from iggyflux.payloads.binary import is_plain
from iggyflux.payloads.compression import expand_all
from iggyflux.payloads.format import MAX_DEPTH, MAX_PAYLOAD_BYTES
from iggyflux.payloads.json_ import may_be_deep, may_repeat_a_key
from iggyflux.plan.bounds import MAX_BYTES_AT_ONCE, MAX_LINE_CHARACTERS, MayBeTooMuch, Work, check_characters
from iggyflux.plan.codegen import BUCKET_END, Generated, NotCompiled, generate
from iggyflux.plan.fallback import describe_fault
from iggyflux.plan.reads import payload_reads
from iggyflux.plan.reference import NO_TAGS, ReferencePlan, finite, joined
from iggyflux.records import JSON, Failure, LazyMessages, Message, Rendered, payload_bytes, payloads_of
from iggyflux.spec import Writer
from iggyflux.values import KEEPS_NUMBERS, may_round

Decode = Callable[[bytes], Any]
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecordError, RecursionError)

_LIGHT_BYTES = 2_000_000
"""So many bytes of payloads become lines in a fraction of a second, by generated code that calls no function."""
_CHUNK = 1000
"""So many messages, and all that is made of them, are in the processor's cache together, which saves a sixth."""
_LIGHT_MESSAGES = 10_000
"""So many messages are rendered in half a second by the reference plan, if all of them are odd."""


class CompiledPlan:
    """A writer document as generated code.

    Thread-safe: calls share nothing but memos, whose entries never change.  `source` is the generated Python; `reason`
    says why there is none, so that the reference plan does all the work.
    """

    def __init__(
        self, writer: Writer, dialect: Dialect, precision: Precision, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        self.dialect = dialect
        self.precision = precision
        self.reference = ReferencePlan(writer, dialect, precision, tags)
        self.source = ""
        self.reason: str | None = None
        self._run: Callable[..., Any] | None = None
        self._decode: Decode
        self._fault: str | None = None
        form, options = FORMATS[writer.source.payload.format], writer.source.payload.options
        self._find_undeclared = form.finder_of_undeclared(options, writer.source.strict)
        self._is_json = writer.source.payload.format == "json"
        self._compression = writer.source.payload.compression
        self._strict = writer.source.strict
        self._is_bounded_by_size = False
        self.interpreted: tuple[tuple[Expression, Interpreted], ...] = ()
        """The expressions that generated code evaluates for each record."""
        self.refuses_unsigned = False
        """Whether the reference plan renders each message with an unsigned integer."""
        self._repeats = writer.may_repeat
        self._may_round = _casts_numbers(writer) and not FORMATS[writer.source.payload.format].binary
        try:
            self._compile(generate(writer, dialect, precision, tags))
        except (NotCompiled, RecordError) as error:
            self.reason = str(error)
        except Exception as error:
            self._fault = describe_fault(error)
            self.reason = f"a bug in iggyflux: {self._fault}"

    def _compile(self, generated: Generated) -> None:
        writer = self.reference.writer
        reads = payload_reads(writer)
        self.source = generated.source
        namespace: dict[str, Any] = {"__name__": "iggyflux.plan.generated", **generated.namespace}
        exec(compile(generated.source, f"<plan of {writer.name}>", "exec", dont_inherit=True), namespace)  # noqa: S102  (our own source)
        if not self._is_json:
            form = FORMATS[writer.source.payload.format]
            typed = writer.keeps_types and form.decode_typed is not None
            decode = form.bound(writer.source.payload.options, reads, writer.source.strict, typed=typed)
            self.refuses_unsigned = typed and not _knows_unsigned(generated, self.dialect)
            self._decode = (lambda payload: _plain(decode(payload))) if self.refuses_unsigned else decode
            if typed:
                _give_plain_integers(namespace, generated)
        elif generated.is_static:
            self._decode = msgspec.json.Decoder(namespace["Payload"]).decode
        else:
            self._decode = msgspec.json.Decoder().decode
        self._run = namespace["render"]
        self._namespace = namespace
        is_bare_json = self._is_json and self._compression == "none"
        self._is_bounded_by_size = is_bare_json and generated.is_static and not generated.interpreted
        self.interpreted = generated.interpreted

    def decode(self, messages: Sequence[Message]) -> list[Any]:
        """Return the decoded payloads of good messages: what is read of them, nothing checked.  For measurements."""
        payloads = payloads_of(messages)
        if self._compression != "none":
            payloads = [expand(payload, self._compression) for payload in payloads]
        return list(map(self._decode, payloads))

    @contextmanager
    def timing(self, seconds: Callable[[], float]) -> Iterator[dict[Interpreted, float]]:
        """Measure what the evaluation of each expression takes, while the block renders; no other thread may render."""
        spent: dict[Interpreted, float] = defaultdict(float)
        before = {name: self._namespace[name] for name in ("evaluate", "evaluate_deeply")}

        def timed(evaluate: Callable[..., Any]) -> Callable[..., Any]:
            def call(of: Interpreted, *inputs: Any, **named: Any) -> Any:
                since = seconds()
                try:
                    return evaluate(of, *inputs, **named)
                finally:
                    spent[of] += seconds() - since

            return call

        self._namespace.update({name: timed(evaluate) for name, evaluate in before.items()})
        try:
            yield spent
        finally:
            self._namespace.update(before)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return lines, origins and failures of `messages`, in their order; never raise for what a message contains.

        If generated code fails unexpectedly, the reference plan renders all of `messages`, and `fallback` of the result
        names the fault.
        """
        parts = list(self.render_parts(messages))
        return parts[0][1] if len(parts) == 1 else joined(parts)

    def may_take_long(self, messages: Sequence[Message]) -> bool:
        """Whether rendering `messages` may take longer than a fraction of a second, by what their size says."""
        if not self._is_bounded_by_size:
            return True
        if len(messages) > _LIGHT_MESSAGES:
            return True
        total = payload_bytes(messages)
        if self._repeats:  # each element may make a line of the whole payload
            total = sum([size * size // 8 for size in map(len, payloads_of(messages))])
        return total * len(self.reference.writer.points) > _LIGHT_BYTES

    def render_parts(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        """Yield what `render` returns in parts: the number of messages, and what they become.

        The work for a part is bounded, or it is one message: what may be too much at once is halved, and the reference
        plan renders a message that may be too much alone.  Usually there is one part.
        """
        waiting = [messages] if messages else []
        while waiting:
            part = waiting.pop()
            try:
                yield from self._render_at_once(part)
            except MayBeTooMuch:
                middle = len(part) // 2
                waiting += (part[middle:], part[:middle])

    def _render_at_once(self, messages: Sequence[Message]) -> Iterator[tuple[int, Rendered]]:
        """Yield the parts of `messages`, usually one.  Raise MayBeTooMuch before the first one if there are several."""
        if self._run is None:
            yield from self._by_reference(messages, self._fault)
            return
        try:
            rendered = self._render_in_chunks(self._run, messages)
        except MayBeTooMuch:
            if len(messages) > 1:
                raise
            rendered = self.reference.render(messages)
        except Exception as error:
            yield from self._by_reference(messages, describe_fault(error))
            return
        yield len(messages), rendered

    def _by_reference(self, messages: Sequence[Message], fault: str | None) -> Iterator[tuple[int, Rendered]]:
        for count, rendered in self.reference.render_parts(messages):
            yield count, rendered if fault is None else replace(rendered, fallback=fault)

    def _render_in_chunks(self, run: Callable[..., Any], messages: Sequence[Message]) -> Rendered:
        work, total = Work(), len(messages)
        chunks = (
            [messages[start : start + _CHUNK] for start in range(0, total, _CHUNK)] if total > _CHUNK else [messages]
        )
        return joined((len(chunk), self._render(run, chunk, work)) for chunk in chunks)

    def _render(self, run: Callable[..., Any], messages: Sequence[Message], work: Work) -> Rendered:
        payloads = payloads_of(messages)
        fallback: set[int] = set()
        if self._compression != "none":
            payloads = self._expand(payloads, fallback)
        self._find_fallback(payloads, fallback)
        roots = self._decode_all(payloads, fallback)
        kept: Sequence[int] = range(len(messages))
        messages_kept = messages
        if fallback:
            kept = [index for index in kept if index not in fallback]
            messages_kept = (
                messages.chosen(kept) if isinstance(messages, LazyMessages) else [messages[index] for index in kept]
            )
        undeclared: Sequence[int] = ()
        if self._find_undeclared is not None:
            found = self._find_undeclared([payloads[index] for index in kept] if fallback else payloads)
            undeclared = [kept[position] for position in found]
        inner_fallback: set[int] = set()
        made, positions, origins, skipped, empty = run(messages_kept, roots, inner_fallback)
        work.characters += sum([sum(map(len, lines)) for lines, _, _ in made])
        check_characters(work.characters, MAX_LINE_CHARACTERS)
        fallback.update(kept[position] for position in inner_fallback)
        rendered = self._assemble(messages, made, kept, positions, origins, skipped, empty, fallback, work)
        if undeclared:
            undeclared = sorted({*undeclared, *rendered.undeclared})
            rendered = replace(rendered, undeclared=undeclared)
        return rendered

    def _expand(self, payloads: list[bytes], fallback: set[int]) -> list[bytes]:
        """Return what `payloads` expand to, nothing for one that is damaged: the reference plan says how."""
        found = expand_all(payloads, self._compression, MAX_BYTES_AT_ONCE)
        if found is None:
            raise MayBeTooMuch
        expanded, damaged = found
        fallback.update(damaged)
        return expanded

    def _find_fallback(self, payloads: list[bytes], fallback: set[int]) -> None:
        """Add the payloads to `fallback` that only the reference plan can judge.

        They are too large, too deep or not UTF-8, may have a duplicate key that `strict` rejects, or contain a number
        that a cast may have to reject as rounded.
        """
        if self._may_round:
            fallback.update(index for index, payload in enumerate(payloads) if may_round(payload))
        longest = max(map(len, payloads))
        if len(payloads) > 1 and longest * len(payloads) > MAX_BYTES_AT_ONCE < sum(map(len, payloads)):
            raise MayBeTooMuch
        if not self._is_json:
            return
        if self._strict:
            fallback.update(index for index, payload in enumerate(payloads) if may_repeat_a_key(payload))
        if longest > 2 * MAX_DEPTH:
            fallback.update(index for index, payload in enumerate(payloads) if _is_deep_or_large(payload))
        if not b"".join(payloads).isascii():  # faster than to ask each of them
            fallback.update(index for index, payload in enumerate(payloads) if not _is_utf8(payload))

    def _decode_all(self, payloads: list[bytes], fallback: set[int]) -> list[Any]:
        """Return the decoded payloads, without those in `fallback`; add to it the index of each that is not decoded."""
        indices: Sequence[int] = range(len(payloads))
        if fallback:
            indices = [index for index in indices if index not in fallback]
            payloads = [payloads[index] for index in indices]
        roots: list[Any] = []
        failed = 0
        decoded = map(self._decode, payloads)
        while True:
            try:
                roots.extend(decoded)
            except _DECODE_ERRORS:  # what came before it was added, and what comes after it follows
                fallback.add(indices[len(roots) + failed])
                failed += 1
            else:
                return roots

    def _assemble(
        self,
        messages: Sequence[Message],
        made: Sequence[_Made],
        kept: Sequence[int],
        positions: Sequence[int],
        origins: Sequence[int],
        skipped: Sequence[int],
        empty: Sequence[int],
        fallback: set[int],
        work: Work,
    ) -> Rendered:
        """Return what the generated code made, in the order of messages; the reference plan renders `fallback`."""
        lines, records, times = made[0] if len(made) == 1 else _in_order(made)
        if type(positions) is range and type(origins) is range and type(records) is range:
            indices = kept  # each has one line
        else:
            indices = [kept[positions[origins[record]]] for record in records]
        skips = [kept[position] for position in skipped]
        none = [kept[position] for position in empty]
        if len(self.reference.writer.points) > 1 or type(records) is not range:
            with_lines = set(indices)
            with_lines.update(none)
            # `where` was false for every element: the message made nothing.
            skips = sorted({*skips, *(kept[position] for position in positions if kept[position] not in with_lines)})
        lines, buckets = self._without_buckets(lines)
        if not fallback:
            return Rendered(lines, indices, [], skips, none, omitted=[], times=times, buckets=buckets)
        return self._merge(messages, lines, times, buckets, indices, skips, none, fallback, work)

    def _without_buckets(self, lines: list[str]) -> tuple[list[str], list[str] | None]:
        """Return the lines, and the buckets that generated code writes before them."""
        if not self.reference.writer.chooses_bucket:
            return lines, None
        parts = [line.partition(BUCKET_END) for line in lines]  # that of a record without a bucket is left out later
        return [line for _, _, line in parts], [bucket for bucket, _, _ in parts]

    def _merge(
        self,
        messages: Sequence[Message],
        lines: list[str],
        times: Sequence[int],
        buckets: list[str] | None,
        indices: Sequence[int],
        skips: list[int],
        none: list[int],
        fallback: set[int],
        work: Work,
    ) -> Rendered:
        """Return the same with what the reference plan makes of `fallback`, in the place of what was made of it."""
        merged = _Merged()
        failures: list[Failure] = []
        omitted: list[Failure] = []
        undeclared: list[int] = []
        skips = [index for index in skips if index not in fallback]
        none = [index for index in none if index not in fallback]
        start = 0  # of what is not merged yet
        for index in sorted(fallback):
            if work.is_enough:
                raise MayBeTooMuch
            outcome = self.reference.render_message(index, messages[index], work)
            stop = bisect_left(indices, index, start)
            merged.add(lines, indices, times, buckets, start, stop)
            start = bisect_right(indices, index, stop)
            of_lines = [int(line[line.rfind(" ") :]) for line in outcome.lines]
            chosen = outcome.buckets or [""] * len(of_lines)
            merged.add(outcome.lines, [index] * len(of_lines), of_lines, chosen, 0, len(of_lines))
            failures += outcome.failures
            skips += outcome.skipped
            none += outcome.empty
            omitted += outcome.omitted
            undeclared += outcome.undeclared
        merged.add(lines, indices, times, buckets, start, len(lines))
        return Rendered(
            merged.lines,
            merged.indices,
            failures,
            sorted(skips),
            sorted(none),
            omitted=omitted,
            times=merged.times,
            buckets=None if buckets is None else merged.buckets,
            undeclared=undeclared,
        )


def _casts_numbers(writer: Writer) -> bool:
    """Return whether a cast gives a type to which a number must be converted as it was written."""
    fields = [(item.cast, item.type) for spec in writer.points for item in spec.fields]
    stars = [(star.cast, star.type) for spec in writer.points for star in spec.field_stars]
    return any(cast and kind in KEEPS_NUMBERS for cast, kind in fields + stars)


class _Merged:
    """Lines, the index of the message of each, its time and its bucket, in the order of messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.indices: list[int] = []
        self.times: list[int] = []
        self.buckets: list[str] = []

    def add(
        self,
        lines: Sequence[str],
        indices: Sequence[int],
        times: Sequence[int],
        buckets: Sequence[str] | None,
        start: int,
        stop: int,
    ) -> None:
        """Add what these have in `[start, stop)`."""
        self.lines += lines[start:stop]
        self.indices += indices[start:stop]
        self.times += times[start:stop]
        self.buckets += buckets[start:stop] if buckets else ()


def _knows_unsigned(generated: Generated, dialect: Dialect) -> bool:
    """Return whether generated code has all that is done with unsigned integers, which no function may see."""
    whole = {"root", "parent"}
    return dialect.has_unsigned and all(each.selects or not of.uses & whole for each, of in generated.interpreted)


def _give_plain_integers(namespace: dict[str, Any], generated: Generated) -> None:
    """Let the functions in expressions have plain integers for unsigned ones."""
    calling = {id(of) for each, of in generated.interpreted if not each.selects}

    def plainly(evaluate: Callable[..., Any]) -> Callable[..., Any]:
        def call(of: Interpreted, inputs: Sequence[Sequence[JSON]], *given: Any, **named: Any) -> Any:
            if id(of) in calling:
                inputs = [
                    column if _SCALARS.issuperset(map(type, column)) else [*map(finite, column)] for column in inputs
                ]
            return evaluate(of, inputs, *given, **named)

        return call

    if calling:
        namespace.update({name: plainly(namespace[name]) for name in ("evaluate", "evaluate_deeply")})


_SCALARS = frozenset((str, int, float, bool, type(None)))


def _plain(tree: JSON) -> JSON:
    """Return `tree`; raise RecordError if it has unsigned integers, which only the reference plan tells from others."""
    if not is_plain(tree):
        raise RecordError("", "an unsigned integer")
    return tree


_Made = tuple[list[str], Sequence[int], Sequence[int]]
"""Lines, the record of each, and the time of each."""


def _in_order(made: Sequence[_Made]) -> _Made:
    """Return what several items of `points` made by record, then by item."""
    if len({len(lines) for lines, _, _ in made}) == 1 and all(type(records) is range for _, records, _ in made):
        lines = list(chain.from_iterable(zip(*[lines for lines, _, _ in made], strict=True)))
        times = list(chain.from_iterable(zip(*[times for _, _, times in made], strict=True)))
        return lines, [record for record in made[0][1] for _ in made], times
    found = [
        (record, number, line, time)
        for number, of_item in enumerate(made)
        for line, record, time in zip(*of_item, strict=True)
    ]
    found.sort(key=lambda entry: entry[:2])
    return [entry[2] for entry in found], [entry[0] for entry in found], [entry[3] for entry in found]


def _is_deep_or_large(payload: bytes) -> bool:
    """Return whether only the exact check can say that the payload is neither too large nor too deep."""
    return len(payload) > MAX_PAYLOAD_BYTES or may_be_deep(payload)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
