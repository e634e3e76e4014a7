"""A configuration of another tool: its tree, where converters mark what they used, and a report of all the rest.

Each leaf of the tree has a line in the report: `Configuration.close` adds one for each that no converter named.
A value is quoted in no report.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

from iggyflux.documents import Document, join_pointer, read_document, split_pointer
from iggyflux.errors import DocumentError
from iggyflux.importing.report import Report, Verdict
from iggyflux.records import JSON

T = TypeVar("T")

_WORDS: Final = {str: "a string", int: "an integer", bool: "true or false", list: "a list", dict: "a table"}
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_NAMES_VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Z][A-Z0-9_]*))")
"""What a whole secret may be.  `$NAME` of a variable that is not set is itself the secret: only capitals are a name."""


class Configuration:
    """The tree of one file, and the report of what becomes of it.  Raise DocumentError if the file has no tree.

    `expands` says that the tool replaces `$NAME` and `${NAME}` in its file by variables of the environment.
    """

    def __init__(self, text: str | bytes, *, file: str | None, form: str, expands: bool = False) -> None:
        self.expands = expands
        self._document: Document = read_document(text, file=file, format=form)
        if self._document.faults:
            raise DocumentError(self._document.faults)
        self.report = Report()
        self._named: set[str] = set()

    @property
    def root(self) -> Part:
        """The whole file; a file that is not a table is an empty one, which `close` reports."""
        tree = self._document.tree
        return Part(self, "", tree if isinstance(tree, dict) else {})

    @property
    def tree(self) -> JSON:
        return self._document.tree

    def line(self, pointer: str) -> int:
        return self._document.locate(pointer, key=True).line or 1

    def tell(self, pointer: str, verdict: Verdict, became: str) -> None:
        """Add a line to the report; everything below `pointer` is named by it."""
        self._named.add(pointer)
        names = [part for part in split_pointer(pointer) if not part.isdigit()]
        self.report.add(self.line(pointer), ".".join(names) or "the file", verdict, became)

    def overrule(self, pointer: str, names: Collection[str], because: str) -> None:
        """Say of the leaves below `pointer` with these dotted names that there is nothing to do, whatever was said."""
        for leaf in _leaves(self.tree, ""):
            inner = leaf.removeprefix(f"{pointer}/") if leaf.startswith(f"{pointer}/") else ""
            if ".".join(part for part in inner.split("/") if not part.isdigit()) in names:
                construct = ".".join(part for part in split_pointer(leaf) if not part.isdigit())
                self.report.withdraw(self.line(leaf), construct)
                self.tell(leaf, Verdict.TAKEN, f"nothing to do: {because}")

    def warn_of_variables(self, sections: Sequence[str], but: Sequence[str]) -> None:
        """Report variables in the values of sections that mappings are made of: a mapping has none."""
        for pointer in _leaves(self.tree, ""):
            parts = list(split_pointer(pointer))
            node = self._document.node(pointer)
            value = None if node is None else node.value
            texts = value if isinstance(value, list) else [value]
            has_variable = any(isinstance(text, str) and _VARIABLE.search(text) for text in texts)
            if has_variable and parts[0] in sections and parts[-1] not in but:
                names = ".".join(part for part in parts if not part.isdigit())
                became = "it has a variable, and a mapping has none: write its value"
                self.report.add(self.line(pointer), names, Verdict.NOT_TAKEN, became)

    def close(self) -> Report:
        """Report every leaf that nothing was said of, and return the report."""
        for pointer in _leaves(self._document.tree, ""):
            if not any(above in self._named for above in _above(pointer)):
                self.tell(pointer, Verdict.NOT_TAKEN, "iggyflux has nothing that corresponds to it")
        return self.report


class Part:
    """A table of the configuration."""

    def __init__(self, whole: Configuration, pointer: str, tree: dict[str, JSON]) -> None:
        self.whole = whole
        self.pointer = pointer
        self.tree = tree

    def __contains__(self, key: str) -> bool:
        return self.tree.get(key) is not None

    def _at(self, key: str | None) -> str:
        return self.pointer if key is None else join_pointer(self.pointer, key)

    # --- verdicts; without a key, of the table ---

    def taken(self, key: str | None, became: str) -> None:
        self.whole.tell(self._at(key), Verdict.TAKEN, became)

    def approximated(self, key: str | None, became: str) -> None:
        self.whole.tell(self._at(key), Verdict.APPROXIMATED, became)

    def not_taken(self, key: str | None, why: str) -> None:
        self.whole.tell(self._at(key), Verdict.NOT_TAKEN, why)

    def ignored(self, *keys: str, because: str) -> None:
        """Report keys that are left to the reader."""
        for key in keys:
            if key in self.tree:
                self.not_taken(key, because)

    def not_needed(self, *keys: str, because: str) -> None:
        """Report keys for which there is nothing to do."""
        for key in keys:
            if key in self.tree:
                self.taken(key, f"nothing to do: {because}")

    def overruled(self, *names: str, because: str) -> None:
        """Report keys, dotted where they are in tables below, for which another key leaves nothing to do."""
        self.whole.overrule(self.pointer, names, because)

    def remark(self, verdict: Verdict, construct: str, became: str) -> None:
        """Report what follows from a default of the tool, which the table does not name."""
        self.whole.report.add(self.whole.line(self.pointer), construct, verdict, became)

    # --- values; one of another type is reported as not taken, and counts as missing ---

    def get(self, key: str, kind: type[T]) -> T | None:
        value = self.tree.get(key)
        if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
            return value
        self.not_taken(key, f"expected {_WORDS[kind]}")
        return None

    def text(self, key: str) -> str:
        """Return a string, a number as its text; "" if there is none."""
        value = self.tree.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        return self.get(key, str) or ""

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.get(key, bool)
        return default if value is None else value

    def texts(self, key: str) -> list[str]:
        """Return a list of strings, or one string as a list."""
        value = self.tree.get(key)
        if isinstance(value, str):
            return [value]
        return [each for each in self.get(key, list) or [] if isinstance(each, str)]

    def part(self, key: str) -> Part:
        """Return the table at `key`, an empty one if there is none."""
        return Part(self.whole, self._at(key), self.get(key, dict) or {})

    def parts(self, key: str) -> list[Part]:
        """Return the tables of a list at `key`; one table is a list of one."""
        value: Any = self.tree.get(key)
        if isinstance(value, dict):
            return [self.part(key)]
        items = enumerate(self.get(key, list) or [])
        return [Part(self.whole, join_pointer(self._at(key), n), each) for n, each in items if isinstance(each, dict)]

    def children(self) -> Iterator[tuple[str, list[Part]]]:
        """Yield each key with its tables."""
        for key in self.tree:
            yield key, self.parts(key) if isinstance(self.tree[key], dict | list) else []

    def written(self, text: str) -> str:
        """Return a text of their file, which may have a variable, as a text of a pipeline."""
        return with_variables(text) if self.whole.expands else literal_text(text)

    def secret(self, key: str, variable: str, became: str) -> str | None:
        """Return `${variable}` for a secret, whose value stays in their file; None if there is none."""
        value = self.text(key)
        if not value:
            return None
        whole = _NAMES_VARIABLE.fullmatch(value) if self.whole.expands else None
        if whole is not None:
            name = whole[1] or whole[2]
            self.taken(key, f"`{became}: ${{{name}}}`")
            return f"${{{name}}}"
        self.taken(key, f"`{became}: ${{{variable}}}`: the value is not copied; set the variable {variable}")
        return f"${{{variable}}}"


def with_variables(text: str) -> str:
    """Return a text with their variables as one of a pipeline: `$NAME` is `${NAME}`, and another `${` is literal."""
    made, at = "", 0
    for match in _VARIABLE.finditer(text):
        made += literal_text(text[at : match.start()])
        made += f"${{{match[2]}}}" if match[2] else match[0]
        at = match.end()
    return made + literal_text(text[at:])


def literal_text(text: str) -> str:
    """Return a text as one of a pipeline, without a variable."""
    return text.replace("${", "$${")


def _leaves(tree: JSON, pointer: str) -> Iterator[str]:
    waiting: list[tuple[JSON, str]] = [(tree, pointer)]
    while waiting:
        value, here = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [(each, join_pointer(here, key)) for key, each in value.items()]
        elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
            waiting += [(each, join_pointer(here, number)) for number, each in enumerate(value)]
        else:
            yield here


def _above(pointer: str) -> Iterator[str]:
    """Yield a pointer and those of everything around it."""
    yield pointer
    while pointer:
        pointer = pointer.rpartition("/")[0]
        yield pointer
