"""Variables and secrets of a pipeline file: `${NAME}` is replaced, and what may be a secret is never quoted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

from iggyflux.documents import Document, is_telling, load_schema, mask_of
from iggyflux.errors import Problem
from iggyflux.records import JSON
from iggyflux.secrets import is_name_of_secret, is_secret_key, url_secrets

_REFERENCE = re.compile(r"\$(\$)\{|\$\{([^{}]*)\}")
"""`$${`, which is the text `${`, or a variable."""
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_NOT_OF_A_VALUE = ("IFX802", "IFX110")  # also reported for a value whose variable is not set
_CORE_SCALARS: dict[str, Callable[[str], JSON]] = {
    "integer": lambda text: int(text) if re.fullmatch(r"[-+]?[0-9]{1,20}", text) else text,
    "boolean": lambda text: {"true": True, "false": False}.get(text.lower(), text),
}


def filled(text: str, environ: Mapping[str, str]) -> str | None:
    """Return a text with every `${NAME}` replaced; None if one has no value, or is not a name."""
    is_whole = True

    def value(match: re.Match[str]) -> str:
        nonlocal is_whole
        found = "${" if match[1] else _value_of(_VARIABLE.fullmatch(match[2]), environ)
        is_whole &= found is not None
        return found or ""

    replaced = _REFERENCE.sub(value, text)
    return replaced if is_whole else None


def _value_of(variable: re.Match[str] | None, environ: Mapping[str, str]) -> str | None:
    """Return the value of `NAME` or `NAME:-default`; None if it has none."""
    return None if variable is None else environ.get(variable[1]) or variable[2]


class Variables:
    """The tree of one file with every `${NAME}` replaced, and the mask of its problems.

    `problems` are those of variables, and `unset` the pointers of the values that have some because a variable is not
    set.
    """

    def __init__(self, raw: Document, environ: Mapping[str, str]) -> None:
        self.mask = mask_of(raw.root, raw.text, by_line=bool(raw.faults))
        self._raw = dataclasses.replace(raw, mask=self.mask)
        self._environ = environ
        self._unset: set[str] = set()
        self.unset: set[str] = set()
        self.problems: list[Problem] = []
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
        if isinstance(node, dict) and pointer.endswith("/tags"):  # names of the user, each value a text
            return {name: self._filled(child, f"{pointer}/{escape_key(name)}", "") for name, child in node.items()}
        if isinstance(node, dict):
            if secret:  # a name with a space or a colon may hold a value
                self.mask.add(*(name for name in node if re.search(r"[\s:'\"]", name)))
            return {
                name: self._filled(child, f"{pointer}/{escape_key(name)}", name, secret) for name, child in node.items()
            }
        if isinstance(node, list):
            return [self._filled(child, f"{pointer}/{index}", key, secret) for index, child in enumerate(node)]
        if not isinstance(node, str):
            return node
        text = _REFERENCE.sub(lambda match: self._variable(match, pointer), node)
        if "${" in _REFERENCE.sub("\0", node):
            hint = "write ${NAME} or ${NAME:-default}; a default has no variables, and $${ is the text ${ itself"
            self._report("IFX802", pointer, "a variable is not closed: ${ without its }", hint)
        if _REFERENCE.search(node):
            self._note_secrets(node, text, pointer, secret)
        return text if secret else _typed(node, text, key)

    def _note_secrets(self, written: str, text: str, pointer: str, secret: bool) -> None:
        """Note the secrets in a value: `written` in the file, and `text` with its variables replaced."""
        self.mask.add(*url_secrets(text))
        if not written.startswith("file:") and self._is_hidden(pointer):
            whole = () if pointer in self._unset else (text,)
            self.mask.add(*(each for each in (*whole, *_literals(written)) if secret or is_telling(each)))

    def _is_hidden(self, pointer: str) -> bool:
        node = self._raw.node(pointer)
        return node is None or self.mask.hides(node)

    def _variable(self, match: re.Match[str], pointer: str) -> str:
        if match[1]:
            return "${"
        parts = _VARIABLE.fullmatch(match[2])
        if parts is None:
            self._report("IFX802", pointer, f"invalid variable: {match[0]!r}", "write ${NAME} or ${NAME:-default}")
            return match[0]
        name, value = parts[1], _value_of(parts, self._environ)
        if value is None:
            hint = f"set {name}, or write a default: ${{{name}:-…}}"
            state = "empty" if name in self._environ else "not set"
            self._report("IFX802", pointer, f"the environment variable {name} is {state}", hint)
            self.unset.add(pointer)
            return match[0]
        if is_name_of_secret(name):
            self.mask.add(value)
        return value

    def _report(self, code: str, pointer: str, message: str, hint: str) -> None:
        """Report a problem of a variable; other problems of its value are not reported."""
        self._unset.add(pointer)
        self.problems.append(self._raw.problem(code, pointer, message, hint=hint))

    def masked(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return the problems in the order of the text, without duplicates, with every secret replaced by `***`."""
        shown = [each for each in problems if each.code in _NOT_OF_A_VALUE or each.location.pointer not in self._unset]
        ordered = sorted(dict.fromkeys(shown), key=lambda each: (each.location.line, each.location.column))
        return list(dict.fromkeys(self.mask.without_pointer(self.mask(each)) for each in ordered))


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
