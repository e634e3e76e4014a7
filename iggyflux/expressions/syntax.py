"""Text to tree: jmespath's own lexer and parser, and good words for what they refuse.

Which texts are expressions is jmespath's business alone.  What is added here: the place of each token (`start` and
`stop`), one kind of error with a hint wherever the mistake is certain, limits on length and depth, and no warnings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final, TypeAlias, cast

from jmespath import exceptions, lexer, parser

from iggyflux.errors import ExpressionError

Node: TypeAlias = dict[str, Any]
"""A node of jmespath's tree: `type`, `children`, and `value` where it has one."""

Token: TypeAlias = dict[str, Any]
"""A token of jmespath's lexer: `type`, `value`, `start`; ours adds `stop`, where the next character stands."""

MAX_LENGTH: Final = 16_384
MAX_DEPTH: Final = 100

OPENERS: Final = {"lparen": "rparen", "lbracket": "rbracket", "filter": "rbracket", "lbrace": "rbrace"}
CLOSERS: Final = frozenset(OPENERS.values())
_SIGNS: Final = {"rparen": ")", "rbracket": "]", "rbrace": "}", "colon": ":", "comma": ",", "star": "*"}


def tokenize(text: str) -> list[Token]:
    """The tokens of `text`, with an `eof` at the end; raises ExpressionError."""
    if not text.strip(" \t\n\r"):
        hint = "write @ for the whole value, or {const: ''} for an empty string"
        raise ExpressionError("the expression is empty", code="IFX214", text=text, hint=hint)
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"the expression has {len(text)} characters, more than {MAX_LENGTH}", code="IFX211", text=text[:60] + " …"
        )
    tokens: list[Token] = []
    try:
        for token in _Lexer().tokenize(text):
            token["stop"] = _stop(text, token)
            if token["type"] in ("literal", "quoted_identifier") and not _is_encodable(token["value"]):
                message = "unpaired surrogate"
                raise ExpressionError(message, code="IFX200", text=text, position=token["start"], hint=_SURROGATES)
            tokens.append(token)
    except exceptions.LexerError as error:
        raise _unreadable(text, tokens, error) from error
    except RecursionError as error:
        raise _too_deep(text) from error
    except ValueError as error:  # an index of thousands of digits
        start = len(text) - len(text[tokens[-1]["stop"] :].lstrip()) if tokens else 0
        raise ExpressionError("this number is too long", code="IFX200", text=text, position=start) from error
    return tokens


_SURROGATES: Final = "write the character itself, or both halves: \\ud83d\\ude00"


def _is_encodable(value: object) -> bool:
    """Whether every string in a JSON value can be written in UTF-8."""
    if isinstance(value, dict):
        return all(_is_encodable(key) and _is_encodable(member) for key, member in value.items())
    if isinstance(value, list):
        return all(map(_is_encodable, value))
    return not isinstance(value, str) or not _HALVES.search(value)


_HALVES: Final = re.compile("[\ud800-\udfff]")


def parse(text: str, tokens: list[Token]) -> Node:
    """The tree of `tokens`; raises ExpressionError."""
    depth = 0
    for token in tokens:
        depth += (token["type"] in OPENERS) - (token["type"] in CLOSERS)
        if depth > MAX_DEPTH:
            raise _too_deep(text, token["start"])
    try:
        node = _Parser().parse_tokens(tokens)
    except exceptions.IncompleteExpressionError as error:
        raise _unfinished(text, tokens) from error
    except exceptions.ParseError as error:
        raise _unexpected(text, tokens, error) from error
    except RecursionError as error:
        raise _too_deep(text) from error
    if _depth(node) > MAX_DEPTH:
        raise _too_deep(text)
    return node


def children_in_order(node: Node) -> list[Node]:
    """The children of a node in the order of the text (a filter stands before what is taken of its elements)."""
    children: list[Node] = [child for child in node["children"] if isinstance(child, dict)]
    if node["type"] == "filter_projection":
        left, right, condition = children
        return [left, condition, right]
    return children


class _Lexer(lexer.Lexer):  # type: ignore[misc]  # jmespath has no types
    """jmespath's lexer, but for its warning on `` `text` ``, which we mark on the token instead."""

    def _consume_literal(self) -> Token:
        start = self._position
        lexeme = self._consume_until("`").replace("\\`", "`")
        token: Token = {"type": "literal", "start": start}
        try:
            return token | {"value": json.loads(lexeme)}
        except ValueError:
            pass
        try:  # what is not JSON is taken as a string, if it can be one
            return token | {"value": json.loads(f'"{lexeme.lstrip()}"'), "deprecated": True}
        except ValueError as error:
            raise exceptions.LexerError(start, lexeme, "bad literal") from error


class _Parser(parser.Parser):  # type: ignore[misc]
    """jmespath's parser, fed with tokens: the text is read once, and its process-wide cache of trees is not used."""

    def parse_tokens(self, tokens: list[Token]) -> Node:
        self._tokens = tokens
        self._index = 0
        node = self._expression(binding_power=0)
        if self._current_token() != "eof":
            self._raise_parse_error_for_token(self._lookahead_token(0), "unexpected")
        return cast(Node, node)


def _stop(text: str, token: Token) -> int:
    """Where a token ends; what the lexer says of it holds for some kinds only."""
    start = cast(int, token["start"])
    kind = token["type"]
    if kind in ("literal", "quoted_identifier"):
        delimiter, position = text[start], start + 1
        while text[position] != delimiter:
            position += 2 if text[position] == "\\" else 1
        return position + 1
    if kind == "number":
        return start + len(cast(re.Match[str], re.match(r"-?[0-9]+", text[start:])).group())
    return start + len(token["value"])


def _depth(node: Node) -> int:
    deepest, level = 0, [node]
    while level:
        deepest += 1
        level = [child for parent in level for child in parent["children"] if isinstance(child, dict)]
    return deepest


# --- words ---


def _too_deep(text: str, position: int = 0) -> ExpressionError:
    return ExpressionError(
        f"the expression is nested more than {MAX_DEPTH} levels deep", code="IFX211", text=text, position=position
    )


_OPERATORS: Final = {
    "+": "use the function add(a, b)",
    "-": "use the function subtract(a, b)",
    "*": "use the function multiply(a, b)",
    "/": "use the function divide(a, b)",
    "%": "use the function modulo(a, b)",
    "=": "write == to compare",
    "?": "write if(a, b, c) for a ? b : c, and coalesce(a, b) for a ?? b",
    "$": "start a path with a name, @ (the current value) or root() (the whole payload); ${…} is for pipeline files",
    "~": "write ! for not",
    "^": "remove it",
    "#": "remove the comment",
    ";": "write a single expression",
}
_CURLY: Final = "‘’“”´"


def _unreadable(text: str, tokens: list[Token], error: exceptions.LexerError) -> ExpressionError:
    """Words for what the lexer refused."""
    position: int = error.lexer_position
    character = text[position]

    def made(code: str, message: str, hint: str | None, length: int = 1, at: int = position) -> ExpressionError:
        return ExpressionError(message, code=code, text=text, position=at, length=length, hint=hint)

    if error.message == "bad literal":
        return _bad_literal(text, position, error.lexer_value)
    if error.message.startswith("Unclosed"):
        words = {"'": "text", '"': "quoted name", "`": "literal"}
        return made("IFX201", f"the {words[character]} that starts here is not closed", f"close it with {character}")
    if character == '"':
        hint = 'names in double quotes are JSON strings: write a backslash as "\\\\"'
        return made("IFX202", f"invalid quoted name: {error.message.lower()}", hint, len(error.lexer_value))
    word = re.match(r"[^\s.,:()\[\]{}|&<>!='\"`@*+/?;]+", text[position:])
    before = tokens[-1] if tokens and tokens[-1]["stop"] == position else None
    if before is not None and before["type"] == "unquoted_identifier" and word:
        whole = text[before["start"] : position] + word.group()
        if character == "-" and len(word.group()) > 1:
            name, rest = before["value"], word.group()[1:]
            hint = f'quote a name that contains -: "{whole}"; write subtract({name}, {rest}) for a difference'
            return made("IFX200", "an unquoted name cannot contain -", hint)
        if character.isalnum():
            return made("IFX200", f"an unquoted name cannot contain {character}", f'write "{whole}"')
    if character in _OPERATORS:
        return made("IFX200", f"unknown operator {character}", _OPERATORS[character])
    if character in _CURLY:
        return made("IFX200", f"{character} is not a quote", "use straight quotes: ' or \"")
    if character.isalnum() and word:
        return made(
            "IFX200", f"an unquoted name cannot contain {character}", f'write "{word.group()}"', len(word.group())
        )
    return made("IFX200", f"unexpected character {character!r}", None)


def _bad_literal(text: str, start: int, lexeme: str) -> ExpressionError:
    try:
        json.loads(lexeme)
    except json.JSONDecodeError as error:
        plain = text.startswith(lexeme, start + 1)  # no escaped backtick, so that places can be counted
        place = start + 1 + min(error.pos, max(len(lexeme) - 1, 0)) if plain else start
        return ExpressionError(
            f"the literal is not JSON: {error.msg.lower()}",
            code="IFX202",
            text=text,
            position=place,
            hint="write JSON between backticks (`5`, `null`, `[1, 2]`), and a string in single quotes: 'text'",
        )
    except ValueError:
        pass
    return ExpressionError("the literal is not JSON", code="IFX202", text=text, position=start)


def _unfinished(text: str, tokens: list[Token]) -> ExpressionError:
    """Words for an expression that ends too early: the bracket that is open, or the end."""
    still_open: list[Token] = []
    for token in tokens:
        if token["type"] in OPENERS:
            still_open.append(token)
        elif token["type"] in CLOSERS and still_open:
            still_open.pop()
    if still_open:
        token = still_open[-1]
        return ExpressionError(
            f"{token['value']} is not closed",
            code="IFX201",
            text=text,
            position=token["start"],
            length=len(token["value"]),
            hint=f"a {_SIGNS[OPENERS[token['type']]]} is missing",
        )
    last = tokens[-2] if len(tokens) > 1 else tokens[-1]
    return ExpressionError(
        f"expected a value after {_shown(text, last)}, found the end",
        code="IFX200",
        text=text,
        position=len(text.rstrip()),
    )


def _shown(text: str, token: Token) -> str:
    return text[token["start"] : token["stop"]] if token["type"] != "eof" else "the end"


class _Place:
    """A refused token and its neighbours, for the rules below."""

    def __init__(self, text: str, tokens: list[Token], index: int) -> None:
        self.text = text
        self.tokens = tokens
        self.token = tokens[index]
        self.before = tokens[index - 1] if index else None
        self.type: str = self.token["type"]
        self.shown = _shown(text, self.token)
        self.before_type: str = self.before["type"] if self.before else ""
        self.before_shown = _shown(text, self.before) if self.before else ""
        self.after = tokens[index + 1] if index + 1 < len(tokens) else None

    @property
    def opener(self) -> Token | None:
        """The innermost bracket that is open before the token."""
        still_open: list[Token] = []
        for token in self.tokens[: self.tokens.index(self.token)]:
            if token["type"] in OPENERS:
                still_open.append(token)
            elif token["type"] in CLOSERS and still_open:
                still_open.pop()
        return still_open[-1] if still_open else None

    @property
    def after_value(self) -> bool:
        """Whether a complete value stands before the token."""
        return self.before_type in _VALUE_ENDS


_VALUE_ENDS: Final = frozenset(
    (
        "unquoted_identifier",
        "quoted_identifier",
        "literal",
        "current",
        "rparen",
        "rbracket",
        "rbrace",
        "flatten",
        "star",
    )
)
_WORDS: Final = {
    "and": "write && for and",
    "or": "write || for or",
    "in": "write contains(list, a)",
    "is": "write == to compare",
    "eq": "write == to compare",
    "if": "write if(condition, then, otherwise)",
}


def _number(place: _Place) -> Iterator[tuple[str, str | None]]:
    if place.type != "number":
        return
    start = place.token["start"]
    if place.text[:start].rstrip().endswith(".["):
        yield "[ ] follows a name without a dot", f"write name[{place.shown}] for an element of a list"
    if place.before_type == "dot":
        yield f"{place.shown} is not a name", f"write [{place.shown}] for an element of a list"
    if place.shown.startswith("-") and place.after_value:
        yield "unknown operator -", _OPERATORS["-"]
    yield f"expected a value, found {place.shown}", f"write a number in backticks: `{place.shown}`"


def _subscript(place: _Place) -> Iterator[tuple[str, str | None]]:
    if place.before_type != "lbracket" or place.type not in ("literal", "quoted_identifier", "unquoted_identifier"):
        return
    value = place.token["value"]
    if isinstance(value, str):
        name = value if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) else json.dumps(value, ensure_ascii=False)
        yield "[ ] cannot select a member", f"write .{name} for the member; [?{place.shown} == …] is a filter"


def _word(place: _Place) -> Iterator[tuple[str, str | None]]:
    if place.type == "unquoted_identifier" and place.after_value:
        if place.token["value"] in _WORDS:
            yield f"unknown operator {place.shown}", _WORDS[place.token["value"]]
        if place.before_type == "unquoted_identifier" and place.before_shown == "not":
            yield "unknown operator not", "write ! for not"
        if place.before_type == "current":
            yield (
                f"expected an operator or the end after @, found {place.shown}",
                f'quote a member of that name: "@{place.shown}"',
            )
        if place.before_type == "unquoted_identifier":
            yield (
                f"expected an operator or the end, found {place.shown}",
                f'quote a name that contains a space: "{place.before_shown} {place.shown}"',
            )


def _operator(place: _Place) -> Iterator[tuple[str, str | None]]:
    if place.type == "star" and place.after_value:
        yield "unknown operator *", _OPERATORS["*"]
    if place.type == "expref" and place.after_value:
        yield "unknown operator &", "write && for and"
    if place.type == "gt" and place.before_type == "lt":
        yield "unknown operator <>", "write != for unequal"
    if place.type == "literal" and place.before_type == "dot" and isinstance(place.token["value"], str):
        name = json.dumps(place.token["value"], ensure_ascii=False)
        yield "write a name in double quotes, or without quotes", f"write .{name}"
    if place.type == "dot" and place.before_type == "dot":
        yield "recursive search is not supported", "name each member of the path, or use * for any member"
    if place.type == "dot" and not place.before:
        yield "an expression cannot start with a dot", "start a path with a name (a.b), or with @ for the current value"


def _bracket(place: _Place) -> Iterator[tuple[str, str | None]]:
    opener = place.opener
    if place.type in CLOSERS and opener is None:
        yield f"unexpected {place.shown}: no bracket is open", None
    if place.type in CLOSERS and opener is not None and OPENERS[opener["type"]] != place.type:
        sign = _SIGNS[OPENERS[opener["type"]]]
        yield (
            f"expected {sign}, found {place.shown}",
            f"{opener['value']} at character {opener['start'] + 1} is not closed",
        )
    if place.type in CLOSERS or place.type == "comma":
        if place.before_type in ("unquoted_identifier", "quoted_identifier") and opener and opener["type"] == "lbrace":
            yield "expected a name and a value inside { }", f"write {{{place.before_shown}: {place.before_shown}}}"
        if not place.after_value:
            yield f"expected a value, found {place.shown}", None


def _key(place: _Place) -> Iterator[tuple[str, str | None]]:
    if place.type == "lbrace" and place.before_type == "lbrace":
        yield "expected the name of a member, found {", "write the value without {{ }}"
    if place.before_type in ("lbrace", "comma") and (opener := place.opener) and opener["type"] == "lbrace":
        if place.type == "literal" and isinstance(place.token["value"], str):
            name = json.dumps(place.token["value"], ensure_ascii=False)
            yield "expected the name of a member, found a string", f"write {name} in double quotes, or without quotes"
        yield f"expected the name of a member, found {place.shown}", "write a member as name: value"


def _call(place: _Place) -> Iterator[tuple[str, str | None]]:
    if place.type == "lparen" and place.before_type == "quoted_identifier":
        yield "write the name of a function without quotes", None
    if place.after is not None and place.after["type"] == "lparen" and place.type in ("rparen", "literal", "rbracket"):
        yield "this is not a function", "write a call as name(arguments)"


_RULES: Final[tuple[Callable[[_Place], Iterator[tuple[str, str | None]]], ...]] = (
    _call,
    _number,
    _subscript,
    _word,
    _operator,
    _bracket,
    _key,
)


def _unexpected(text: str, tokens: list[Token], error: exceptions.ParseError) -> ExpressionError:
    """Words for a token that the parser refused: of the first rule that knows better, else what was found."""
    start = error.lex_position
    if error.msg.startswith("Quoted identifier"):  # it says 0
        pairs = pairwise(tokens)
        start = next(b["start"] for a, b in pairs if (a["type"], b["type"]) == ("quoted_identifier", "lparen"))
    index = next((i for i, token in enumerate(tokens) if token["start"] == start), len(tokens) - 1)
    place = _Place(text, tokens, index)
    if place.type == "eof":
        return _unfinished(text, tokens)
    message, hint = f"unexpected {place.shown}", None
    if place.after_value:
        message = f"expected an operator or the end, found {place.shown}"
    for rule in _RULES:
        found = next(rule(place), None)
        if found is not None:
            message, hint = found
            break
    length = place.token["stop"] - place.token["start"]
    return ExpressionError(message, code="IFX200", text=text, position=start, length=max(length, 1), hint=hint)
