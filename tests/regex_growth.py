"""How the time of a regular expression grows with its text: hostile texts made of its own structure, and a stopwatch.

The time of a pattern of `re` can be quadratic or worse in the length of a text. Texts that show it repeat something
that the pattern repeats, or the start of what it looks for, and end with something that makes it fail.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser
from typing import Any

SHORT = (20, 160)  # an exponential or a cubic time is seen in these, before it takes minutes
SECONDS_SHORT = 4e-3
LONG = (500, 2000)
SECONDS_A_CHARACTER = 0.25e-6  # a linear pattern needs less in most texts
SECONDS_A_CALL = 60e-6
POOL = "a0 \"'-.=,:/\\\t\n_[{(\0\x1f"
REPEATS = (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT)


def scan(pattern: re.Pattern[Any], text: Any) -> None:
    """Look for all matches, as `search`, `sub` and `split` do."""
    for _ in pattern.finditer(text):
        pass


def tokens(pattern: re.Pattern[Any], text: Any) -> None:
    """Match at one position after the other, as a tokenizer does."""
    position = 0
    while (found := pattern.match(text, position)) and found.end() > position:
        position = found.end()


USES: dict[str, Callable[[re.Pattern[Any], Any], object]] = {
    "scan": scan,
    "tokens": tokens,  # a part of what `scan` does, as `match` is
    "match": lambda pattern, text: pattern.match(text),
    "fullmatch": lambda pattern, text: pattern.fullmatch(text),
}


ANY_USE = ("scan", "fullmatch")


def growth(pattern: re.Pattern[Any], uses: Sequence[str] = ANY_USE) -> str | None:
    """Return a use that takes more than linear time and its text, or None."""
    for text_of in _texts(pattern):
        for use in uses:
            if _is_slow(USES[use], pattern, text_of):
                return f"{use} of {text_of(12)!r}"
    return None


def slowest(pattern: re.Pattern[Any], uses: Sequence[str], longest: int) -> float:
    """Return the seconds that a hostile text of at most this length takes."""
    found = 0.0
    for text_of in _texts(pattern):
        for use in uses:
            if _seconds(USES[use], pattern, text_of(min(longest, 1000))) > _linear(1000):
                text = text_of(longest)
                tries = (_seconds(USES[use], pattern, text) for _ in range(3))
                longer = list(itertools.takewhile(found.__lt__, tries))
                found = min(longer) if len(longer) == 3 else found
    return found


def _linear(length: int) -> float:
    return SECONDS_A_CALL + length * SECONDS_A_CHARACTER


def _is_slow(use: Callable[..., object], pattern: re.Pattern[Any], text_of: Callable[[int], Any]) -> bool:
    for length in SHORT:
        if _seconds(use, pattern, text_of(length)) > SECONDS_SHORT:
            return all(_seconds(use, pattern, text_of(length)) > SECONDS_SHORT for _ in range(5))
    for length in LONG:
        if _seconds(use, pattern, text_of(length)) > _linear(length):  # again and again: the machine may be busy
            return all(_ratio(use, pattern, text_of, length, tries) > 2.6**2 for tries in (1, 3, 9))
    return False


def _ratio(
    use: Callable[..., object], pattern: re.Pattern[Any], text_of: Callable[[int], Any], length: int, tries: int
) -> float:
    """Return how much longer a text four times as long takes, by the fastest of some tries of each."""
    short, long = text_of(length), text_of(4 * length)
    pairs = [(_seconds(use, pattern, short), _seconds(use, pattern, long)) for _ in range(tries)]
    return min(seconds for _, seconds in pairs) / min(seconds for seconds, _ in pairs)


def _seconds(use: Callable[..., object], pattern: re.Pattern[Any], text: Any) -> float:
    start = time.thread_time()
    use(pattern, text)
    return time.thread_time() - start


def _texts(pattern: re.Pattern[Any]) -> Iterator[Callable[[int], Any]]:
    """Yield functions from a length to a text."""
    tree = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, str) else 0)
    encode = (
        (lambda text: text) if isinstance(pattern.pattern, str) else (lambda text: text.encode("latin-1", "replace"))
    )
    starts, characters = _starts(tree), _characters(tree)
    literals = list(dict.fromkeys(chr(argument) for kind, argument in _walk(tree) if kind is kinds.LITERAL))
    pairs = ["".join(pair) for pair in itertools.permutations(literals[:4], 2)]
    pumps = list(dict.fromkeys([*characters[:12], *starts, *pairs]))
    leads = ["", *literals[:3], *[start for start in starts if len(start) > 1][:2]]
    ends = ["", "\0", "\n!", *["".join(pair) for pair in itertools.permutations(characters[:3], 2)]]
    for pump, lead in dict.fromkeys(itertools.product(pumps, leads)):
        for end in ends if len(pump) == 1 else ends[:2]:
            yield lambda length, pump=pump, lead=lead, end=end: encode(lead + pump * (length // len(pump)) + end)  # type: ignore[misc]


def _characters(tree: Any) -> list[str]:
    """Return characters that classes of the pattern hold."""
    return list(dict.fromkeys(each for node in _walk(tree) for each in _samples_of(*node) if len(each) == 1))


def _walk(tree: Any) -> Iterator[tuple[Any, Any]]:
    for kind, argument in tree:
        yield kind, argument
        for sequence in _inside(kind, argument):
            yield from _walk(sequence)


def _inside(kind: Any, argument: Any) -> list[Any]:
    if kind in REPEATS:
        return [argument[2]]
    if kind is kinds.SUBPATTERN:
        return [argument[3]]
    if kind is kinds.ATOMIC_GROUP:
        return [argument]
    if kind in (kinds.ASSERT, kinds.ASSERT_NOT):
        return [argument[1]]
    if kind is kinds.BRANCH:
        return list(argument[1])
    return []


def _starts(tree: Any) -> list[str]:
    """Return texts that match the pattern up to each of its parts."""
    found: list[str] = []
    for sequence in [tree, *(inner for node in _walk(tree) for inner in _inside(*node))]:
        grown = [""]
        for node in sequence:
            parts = _samples_of(*node)
            grown = [a + b for a, b in itertools.product(grown, parts)]
            grown = sorted(dict.fromkeys(grown), key=len)[:4]
            found += [text for text in grown if text and len(text) < 40]
    return list(dict.fromkeys(found))[:24]


def _samples_of(kind: Any, argument: Any) -> list[str]:
    """Return a few texts that a part of a pattern matches."""
    if kind is kinds.LITERAL:
        return [chr(argument)]
    if kind is kinds.NOT_LITERAL:
        return [each for each in POOL if ord(each) != argument][:3]
    if kind is kinds.ANY:
        return ["a", " "]
    if kind is kinds.IN:
        return _members(argument)
    if kind is kinds.BRANCH:
        return list(dict.fromkeys(each for branch in argument[1] for each in _samples(branch)))[:6]
    if kind in REPEATS:
        least, _, body = argument
        return ([""] if least == 0 else []) + [each * max(1, least) for each in _samples(body)]
    if kind in (kinds.SUBPATTERN, kinds.ATOMIC_GROUP):
        return _samples(*_inside(kind, argument))
    return [""]


def _samples(sequence: Any) -> list[str]:
    found = [""]
    for node in sequence:
        found = [a + b for a, b in itertools.product(found, _samples_of(*node))]
        found = list(dict.fromkeys(found))[:4]
    return found


def _members(items: Any) -> list[str]:
    negated = items[0][0] is kinds.NEGATE
    members = {chr(item) for kind, item in items if kind is kinds.LITERAL}
    members |= {chr(item[0]) for kind, item in items if kind is kinds.RANGE}
    categories = [item for kind, item in items if kind is kinds.CATEGORY]
    found = [each for each in POOL if _is_member(each, items)]
    return found[:4] if negated or categories else list(dict.fromkeys([*sorted(members)[:6], *found[:2]]))


def _is_member(character: str, items: Any) -> bool:
    tests = {
        kinds.CATEGORY_DIGIT: str.isdigit,
        kinds.CATEGORY_SPACE: str.isspace,
        kinds.CATEGORY_WORD: lambda each: each.isalnum() or each == "_",
    }
    opposites = {
        kinds.CATEGORY_NOT_DIGIT: kinds.CATEGORY_DIGIT,
        kinds.CATEGORY_NOT_SPACE: kinds.CATEGORY_SPACE,
        kinds.CATEGORY_NOT_WORD: kinds.CATEGORY_WORD,
    }
    negated = items[0][0] is kinds.NEGATE
    held = False
    for kind, item in items:
        if kind is kinds.LITERAL:
            held |= ord(character) == item
        elif kind is kinds.RANGE:
            held |= item[0] <= ord(character) <= item[1]
        elif kind is kinds.CATEGORY:
            held |= tests[item](character) if item in tests else not tests[opposites[item]](character)
    return held != negated
