"""Conditions with the operators of SQL and other languages, rewritten in JMESPath for a hint.

It is used only for texts that are not JMESPath, and its results only if they are.  The parser knows no more than the
precedence of operators: operands are copied as they are, but for the conditions in their brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>-?[0-9]++(?:\.[0-9]++|(?!\.[0-9]))(?![A-Za-z0-9_]))
    |(?P<sign>[=!]==|<=>|<>|[=!<>]=|=~|!~|&&|\|\||\[\?|[0-9]++|['"`].*|\S)""",
    re.VERBOSE | re.DOTALL,  # a quote that is not closed takes the rest
)
_CLOSING: Final = {"(": ")", "[": "]", "[?": "]", "{": "}"}
_LITERALS: Final = frozenset(("null", "true", "false"))


def rewrite(text: str) -> str | None:
    """Return `text` with the operators of JMESPath; None if it has no such form."""
    parser = _Conditions([(str(found.lastgroup), found.group()) for found in _TOKEN.finditer(text)])
    try:
        written = parser.items(())
    except (_Unknown, RecursionError):
        return None
    return written if parser.at_end else None


class _Unknown(Exception):
    """The text has a form that is not known here."""


class _Conditions:
    """Reads tokens, each its kind and its text, and returns the text of what was read."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._next = 0

    @property
    def at_end(self) -> bool:
        return self._next == len(self._tokens)

    def _peek(self, ahead: int = 0) -> str:
        """Return the next token: words in lower case, and "" at the end."""
        at = self._next + ahead
        if at >= len(self._tokens):
            return ""
        kind, text = self._tokens[at]
        return text.lower() if kind == "word" else text

    def _take(self, *words: str) -> bool:
        """Take these words if they are next."""
        taken = all(self._peek(ahead) == word for ahead, word in enumerate(words))
        self._next += len(words) * taken
        return taken

    def items(self, until: Iterable[str]) -> str:
        """Return conditions with what is between them: commas, colons, pipes."""
        written = "" if self._peek() in until else self._joined(0)
        while not self.at_end and self._peek() not in until:
            sign = self._peek()
            if sign not in (",", ":", "|"):
                raise _Unknown
            self._next += 1
            written += f"{' |' if sign == '|' else sign} {self._joined(0)}"
        return written

    def _joined(self, level: int) -> str:
        """Return conditions that are joined by or (level 0) or by and (level 1)."""
        words, sign = ((("or",), ("||",)), "||") if level == 0 else ((("and",), ("&&",)), "&&")
        inner = self._negated if level else lambda: self._joined(1)
        written = inner()
        while any(self._take(*each) for each in words):
            written += f" {sign} {inner()}"
        return written

    def _negated(self) -> str:
        if not self._take("not"):
            return self._comparison()
        first = self._next
        negated = self._negated()
        is_word = self._next == first + 1
        return f"!{negated}" if is_word or self._is_group(first) else f"!({negated})"

    def _is_group(self, first: int) -> bool:
        """Return whether the tokens from `first` to the next are one pair of parentheses and what is in them."""
        depth = 0
        for at in range(first, self._next):
            depth += (self._tokens[at][1] == "(") - (self._tokens[at][1] == ")")
            if not depth:
                return at + 1 == self._next
        return False

    def _comparison(self) -> str:
        left = self._operand()
        for words, write in _OPERATORS:
            if self._take(*words):
                return write(self, left)
        return left

    def _operand(self) -> str:
        """Return a path, a call or a literal, whole."""
        if self._take("!"):
            return f"!{self._operand()}"
        kind, text = self._tokens[self._next] if not self.at_end else ("sign", "")
        if kind == "number" or (kind == "word" and text.lower() in _LITERALS):
            self._next += 1
            return f"`{text.lower()}`"
        if kind in ("word", "text") or text in ("@", "*"):
            self._next += 1
        elif text == "&":
            self._next += 1
            return f"&{self._joined(0)}"
        elif text not in _CLOSING:
            raise _Unknown
        else:
            text = ""
        return text + self._steps(is_first=not text)

    def _steps(self, *, is_first: bool) -> str:
        """Return what follows the beginning of a path: members, brackets, arguments."""
        written = ""
        while is_first or self._peek() in (".", *_CLOSING):
            is_first = False
            opening = self._peek()
            self._next += 1
            if opening != ".":
                written += self._closed(opening)
            elif self._peek() in ("(", "") or self._peek() in _CLOSING.values():
                raise _Unknown
            else:
                written += "."
                if self._peek() not in _CLOSING:
                    written += self._tokens[self._next][1]
                    self._next += 1
        return written

    def _closed(self, opening: str) -> str:
        """Return a bracket with its contents; `opening` was taken."""
        closing = _CLOSING[opening]
        number = self._peek()
        if opening == "[" and re.fullmatch(r"-?[0-9]+|:|\*|", number):  # an index or a slice
            inner = ""
            while self._peek() not in (closing, ""):
                inner += self._peek()
                self._next += 1
        else:
            inner = self.items((closing,))
        if not self._take(closing):
            raise _Unknown
        return f"{opening}{inner}{closing}"

    def right(self) -> str:
        """Return the right side of a comparison."""
        return self._operand()

    def values(self) -> str:
        """Return the right side of `in`: SQL writes a list in parentheses."""
        if self._peek() != "(":
            return self._operand()
        return f"[{self._operand()[1:-1]}]"

    def between(self, left: str) -> str:
        lowest = self._operand()
        if not self._take("and"):
            raise _Unknown
        return f"{left} >= {lowest} && {left} <= {self._operand()}"

    def like(self, left: str) -> str:
        """Return SQL's `like`, in which % matches any text and _ one character."""
        kind, text = self._tokens[self._next] if not self.at_end else ("", "")
        if kind != "text" or text[0] != "'":
            raise _Unknown
        self._next += 1
        pattern = text[1:-1]
        core = pattern.strip("%")
        if "%" in core or "_" in core or "\\" in core:
            written = re.escape(pattern).replace("%", ".*").replace("_", ".")
            return f"regex_match({left}, '(?s)^{written}$')"
        function = {
            (False, False): "",
            (False, True): "starts_with",
            (True, False): "ends_with",
            (True, True): "contains",
        }[pattern.startswith("%"), pattern.endswith("%")]
        return f"{function}({left}, '{core}')" if function else f"{left} == '{core}'"


def _sign(sign: str) -> Callable[[_Conditions, str], str]:
    return lambda parser, left: f"{left} {sign} {parser.right()}"


def _call(name: str) -> Callable[[_Conditions, str], str]:
    return lambda parser, left: f"{name}({left}, {parser.right()})"


def _not(write: Callable[[_Conditions, str], str]) -> Callable[[_Conditions, str], str]:
    def negated(parser: _Conditions, left: str) -> str:
        written = write(parser, left)
        return f"!{written}" if written.endswith(")") and " == " not in written else written.replace(" == ", " != ", 1)

    return negated


def _in(parser: _Conditions, left: str) -> str:
    return f"contains({parser.values()}, {left})"


_OPERATORS: Final[tuple[tuple[tuple[str, ...], Callable[[_Conditions, str], str]], ...]] = (
    (("is", "not"), _sign("!=")),
    (("is",), _sign("==")),
    (("not", "in"), _not(_in)),
    (("in",), _in),
    (("not", "like"), _not(_Conditions.like)),
    (("like",), _Conditions.like),
    (("between",), _Conditions.between),
    (("exists",), lambda _, left: f"{left} != `null`"),
    (("matches",), _call("regex_match")),
    (("=~",), _call("regex_match")),
    (("!~",), _not(_call("regex_match"))),
    (("contains",), _call("contains")),
    *(
        ((word,), _sign(sign))
        for word, sign in (("eq", "=="), ("ne", "!="), ("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    ),
    *(((word,), _sign(sign)) for word, sign in (("=", "=="), ("===", "=="), ("<>", "!="), ("!==", "!="))),
    *(((sign,), _sign(sign)) for sign in ("==", "!=", "<", "<=", ">", ">=")),
)
"""Operators by their words, a longer one before its beginning, and how the rest of the condition is written."""

WORDS: Final = frozenset(words[0] for words, _ in _OPERATORS if words[0].isalpha()) | {"and", "or", "not"}
"""Words that are operators in other languages."""
