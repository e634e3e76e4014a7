"""Variables and secrets of a pipeline file: `${NAME}` is replaced, and what may be a secret is never quoted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

from iggyflux.documents import Document, load_schema, split_pointer
from iggyflux.errors import Problem
from iggyflux.records import JSON
from iggyflux.secrets import Scrubber, is_secret_key, secret_spans, suspected_secrets, url_secrets

_REFERENCE = re.compile(r"\$(\$)\{|\$\{([^{}]*)\}")
"""`$${`, which is the text `${`, or a variable."""
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_FIXED_TEXT = "IFX814"  # its message and hint have no value of the file, and a secret may be one of their words
_NOT_OF_A_VALUE = ("IFX802", "IFX110")  # also reported for a value whose variable is not set
_CORE_SCALARS: dict[str, Callable[[str], JSON]] = {
    "integer": lambda text: int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else text,
    "boolean": lambda text: {"true": True, "false": False}.get(text.lower(), text),
}


class Variables:
    """The tree of one file with every `${NAME}` replaced, and the secret parts of its text.

    `problems` are those of variables.  `secrets` are texts that no problem may show; the caller adds to them.
    """

    def __init__(self, raw: Document, environ: Mapping[str, str]) -> None:
        self._raw = raw
        self._environ = environ
        self._hidden: list[tuple[int, int]] = []  # spans of secrets in the text
        self._unset: set[str] = set()
        self.problems: list[Problem] = []
        self.secrets: set[str] = set()
        self.tree = self._filled(raw.tree, "", "")

    def is_reference(self, pointer: str) -> bool:
        """Return whether the value at `pointer` came from a variable."""
        node: JSON = self._raw.tree
        for part in pointer.split("/")[1:]:
            if not isinstance(node, dict):
                return False
            node = node.get(part)
        return isinstance(node, str) and _REFERENCE.search(node) is not None

    def _filled(self, node: JSON, pointer: str, key: str, secret: bool = False) -> JSON:
        """Return `node`, the value of `key`, with every `${NAME}` replaced; note the secrets in it."""
        secret = secret or is_secret_key(key)
        if isinstance(node, dict):
            if secret:  # a name with a space or a colon may hold a value
                self.secrets.update(name for name in node if re.search(r"[\s:'\"]", name))
            return {
                name: self._filled(child, f"{pointer}/{escape_key(name)}", name, secret) for name, child in node.items()
            }
        if isinstance(node, list):
            return [self._filled(child, f"{pointer}/{index}", key, secret) for index, child in enumerate(node)]
        if isinstance(node, str):
            text = _REFERENCE.sub(lambda match: self._variable(match, pointer), node)
            if "${" in _REFERENCE.sub("\0", node):
                hint = "write ${NAME} or ${NAME:-default}; a default has no variables, and $${ is the text ${ itself"
                self._report("IFX802", pointer, "a variable is not closed: ${ without its }", hint)
            self._note_secrets(node, text, pointer, secret)
            return text if secret else _typed(node, text, key)
        if secret and isinstance(node, int | float) and not isinstance(node, bool):
            self._remember(node, pointer)
        return node

    def _note_secrets(self, written: str, text: str, pointer: str, secret: bool) -> None:
        """Note the secrets in a value: `written` in the file, and `text` with its variables replaced."""
        if secret and written and not written.startswith("file:"):
            if not _REFERENCE.fullmatch(written) or ":-" in written:  # text beside a variable, and a default
                self._remember(written, pointer)
            self.secrets.update(filter(None, (text, *_literals(written))))
        for part in (*url_secrets(written), *url_secrets(text)):
            self.secrets.add(part)
            self._hide(pointer, part)

    def _remember(self, secret: str | float, pointer: str) -> None:
        """Note a secret in plain text: its value and its spelling in the file, since problems quote lines."""
        self.secrets.update((str(secret), *str(secret).splitlines()))
        if (place := self._raw.node(pointer)) is not None:
            self.secrets.add(self._raw.text[place.start : place.end].strip("'\""))
        self._hide(pointer)

    def _hide(self, pointer: str, part: str | None = None) -> None:
        """Hide the source of the scalar at `pointer`, or of a part of it."""
        node = self._raw.node(pointer)
        if node is None:
            return
        source = self._raw.text[node.start : node.end]
        at = -1 if part is None else source.find(part)
        self._hidden.append((node.start + at, node.start + at + len(part or "")) if at >= 0 else (node.start, node.end))

    def _variable(self, match: re.Match[str], pointer: str) -> str:
        if match[1]:
            return "${"
        parts = _VARIABLE.fullmatch(match[2])
        if parts is None:
            self._report("IFX802", pointer, f"invalid variable: {match[0]!r}", "write ${NAME} or ${NAME:-default}")
            return match[0]
        name, default = parts[1], parts[2]
        value = self._environ.get(name) or default
        if value is None:
            hint = f"set {name}, or write a default: ${{{name}:-…}}"
            state = "empty" if name in self._environ else "not set"
            self._report("IFX802", pointer, f"the environment variable {name} is {state}", hint)
            return match[0]
        return value

    def _report(self, code: str, pointer: str, message: str, hint: str) -> None:
        """Report a problem of a variable; other problems of its value are not reported."""
        self._unset.add(pointer)
        self.problems.append(self._raw.problem(code, pointer, message, hint=hint))

    def mask(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return the problems in the order of the text, without duplicates, with every secret replaced by `***`."""
        suspected = (text for fault in self._raw.faults for text in suspected_secrets(fault.source or ""))
        scrub = Scrubber([*self.secrets, *suspected])

        def mask(text: str | None) -> str | None:
            return scrub(text) if text else text

        def mask_pointer(pointer: str) -> str:
            return "".join("/" + escape_key(scrub(part)) for part in split_pointer(pointer))

        def is_fixed(problem: Problem) -> bool:
            return problem.code == _FIXED_TEXT

        shown = [each for each in problems if each.code in _NOT_OF_A_VALUE or each.location.pointer not in self._unset]
        return [
            dataclasses.replace(
                problem,
                message=problem.message if is_fixed(problem) else mask(problem.message) or "",
                location=dataclasses.replace(problem.location, pointer=mask_pointer(problem.location.pointer)),
                found=mask(problem.found),
                hint=problem.hint if is_fixed(problem) else mask(problem.hint),
            ).hiding([*self._hidden_in(problem), *scrub.spans(problem.source or "")])
            for problem in sorted(dict.fromkeys(shown), key=lambda each: (each.location.line, each.location.column))
        ]

    def _hidden_in(self, problem: Problem) -> Iterator[tuple[int, int]]:
        """Yield the spans of a problem's source line that are not shown."""
        if self._raw.faults:  # the second of two equal keys is not in the tree
            yield from secret_spans(problem.source or "")
        line = problem.location.line
        begin = self._raw.lines.start(line) if line else 0
        end = begin + len(problem.source or "")
        for first, last in self._hidden:
            if first < end and begin < last:
                yield max(first - begin, 0), min(last, end) - begin


def _typed(written: str, text: str, key: str) -> JSON:
    """Return `text` as the type that the schema gives `key`, if `written` is one variable and nothing else."""
    whole = _REFERENCE.fullmatch(written)
    if whole and not whole[1]:
        for kind in _key_types().get(key, ()):
            if kind in _CORE_SCALARS:
                return _CORE_SCALARS[kind](text)
    return text


def _literals(text: str) -> Iterator[str]:
    """Yield the texts beside the variables of a text, and the variables' defaults."""
    yield from (part for part in _REFERENCE.sub("\0", text).split("\0") if part)
    yield from (match[2].partition(":-")[2] for match in _REFERENCE.finditer(text) if match[2])


def escape_key(key: str) -> str:
    """Return `key` as a part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


@cache
def _key_types() -> dict[str, tuple[str, ...]]:
    """Return for each key the JSON types that the schema gives it, so that `batch_size: ${SIZE}` becomes a number."""
    found: dict[str, tuple[str, ...]] = {}

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for key, child in (node.get("properties") or {}).items():
                types = child.get("type", ()) if isinstance(child, dict) else ()
                found[key] = (types,) if isinstance(types, str) else tuple(types)
            for child in node.values():
                walk(child)

    walk(load_schema("pipeline"))
    return found
