"""Text to tree: jmespath's own lexer and parser, with better messages for what they reject.

jmespath alone decides which texts are expressions.  This module adds the place of each token (`start` and `stop`), one
kind of error with a hint wherever the mistake is certain, limits on length and depth, and no warnings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final, TypeAlias, cast

from jmespath import exceptions, lexer, parser

from iggyflux.errors import ExpressionError
from iggyflux.expressions.operators import WORDS, rewrite

Node: TypeAlias = dict[str, Any]
"""A node of jmespath's tree: `type`, `children`, and `value` where it has one."""

Token: TypeAlias = dict[str, Any]
"""A token of jmespath's lexer: `type`, `value`, `start`, and added here `stop`, the place of the next character."""

MAX_LENGTH: Final = 16_384
MAX_DEPTH: Final = 100

OPENERS: Final = {"lparen": "rparen", "lbracket": "rbracket", "filter": "rbracket", "lbrace": "rbrace"}
CLOSERS: Final = frozenset(OPENERS.values())
_SIGNS: Final = {"rparen": ")", "rbracket": "]", "rbrace": "}", "colon": ":", "comma": ",", "star": "*"}


def tokenize(text: str) -> list[Token]:
    """Return the tokens of `text`, with an `eof` at the end.

    Raise ExpressionError.
    """
    if not text.strip(" \t\n\r"):
        hint = "write @ for the whole value, or {const: ''} for an empty string"
        raise ExpressionError("the expression is empty", code="IFX214", text=text, hint=hint)
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"the expression has {len(text)} characters, more than {MAX_LENGTH}", code="IFX211", text=text[:60] + " …"
        )
    tokens: list[Token] = []
    try:
        for token in _QuietLexer().tokenize(text):
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
    """Return whether every string in a JSON value can be written in UTF-8."""
    if isinstance(value, dict):
        return all(_is_encodable(key) and _is_encodable(member) for key, member in value.items())
    if isinstance(value, list):
        return all(map(_is_encodable, value))
    return not isinstance(value, str) or not _HALVES.search(value)


_HALVES: Final = re.compile("[\ud800-\udfff]")


def parse(text: str, tokens: list[Token]) -> Node:
    """Return the tree of `tokens`.

    Raise ExpressionError.
    """
    depth = 0
    for token in tokens:
        depth += (token["type"] in OPENERS) - (token["type"] in CLOSERS)
        if depth > MAX_DEPTH:
            raise _too_deep(text, token["start"])
    try:
        node = _TokenParser().parse_tokens(tokens)
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
    """Return the children of a node in the order of the text, in which a filter precedes what it selects from."""
    children: list[Node] = [child for child in node["children"] if isinstance(child, dict)]
    if node["type"] == "filter_projection":
        left, right, condition = children
        return [left, condition, right]
    return children


def nodes_in(node: Node) -> Iterator[Node]:
    """Yield the node and all nodes below it."""
    yield node
    for child in node["children"]:
        if isinstance(child, dict):
            yield from nodes_in(child)


class _QuietLexer(lexer.Lexer):  # type: ignore[misc]  # jmespath has no types
    """jmespath's lexer without its warning on `` `text` ``, which is marked on the token instead."""

    def _consume_literal(self) -> Token:
        start = self._position
        lexeme = self._consume_until("`").replace("\\`", "`")
        token: Token = {"type": "literal", "start": start}
        try:
            return token | {"value": json.loads(lexeme)}
        except ValueError:
            pass
        try:  # text that is not JSON is a string, if it can be one
            return token | {"value": json.loads(f'"{lexeme.lstrip()}"'), "deprecated": True}
        except ValueError as error:
            raise exceptions.LexerError(start, lexeme, "bad literal") from error


class _TokenParser(parser.Parser):  # type: ignore[misc]
    """jmespath's parser, on tokens: it reads the text once, and does not use the process-wide cache of trees."""

    def parse_tokens(self, tokens: list[Token]) -> Node:
        self._tokens = tokens
        self._index = 0
        node = self._expression(binding_power=0)
        if self._current_token() != "eof":
            self._raise_parse_error_for_token(self._lookahead_token(0), "unexpected")
        return cast(Node, node)


def _stop(text: str, token: Token) -> int:
    """Return where a token ends; the lexer gives the right length for some kinds only."""
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


# --- messages ---


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
    "?": "write if(a, b, c) for a ? b : c, coalesce(a, b) for a ?? b, and a.b for a?.b",
    "$": "start a path with a name, @ (the current value) or root() (the whole payload); ${…} is for pipeline files",
    "~": "write ! for not",
    "^": "remove it",
    "#": "remove the comment",
    ";": "write a single expression",
}
_CURLY: Final = "‘’“”´"


def _unreadable(text: str, tokens: list[Token], error: exceptions.LexerError) -> ExpressionError:
    """Return the error for what the lexer rejected."""
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
        return made("IFX200", f"unknown operator {character}", rewritten(text) or _OPERATORS[character])
    if character in _CURLY:
        return made("IFX200", f"{character} is not a quote", "use straight quotes: ' or \"")
    if character.isalnum() and word:
        return made(
            "IFX200", f"an unquoted name cannot contain {character}", f'write "{word.group()}"', len(word.group())
        )
    return made("IFX200", f"unexpected character {character!r}", None)


_LONGEST_HINT: Final = 100


def rewritten(text: str) -> str | None:
    """Return the hint to write the whole expression as JMESPath does; None if that is not known."""
    written = rewrite(text) if len(text) <= 5 * _LONGEST_HINT else None
    if written is None or len(written) > _LONGEST_HINT:
        return None
    try:
        parse(written, tokenize(written))
    except ExpressionError:
        return None
    return f"write {written}"


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
    """Return the error for an expression that ends too early: at the open bracket, or at the end."""
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


class _RejectedToken:
    """A rejected token and its neighbours, for the rules below."""

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
        """The innermost bracket that is open before the token, or None."""
        still_open: list[Token] = []
        for token in self.tokens[: self.tokens.index(self.token)]:
            if token["type"] in OPENERS:
                still_open.append(token)
            elif token["type"] in CLOSERS and still_open:
                still_open.pop()
        return still_open[-1] if still_open else None

    @property
    def after_value(self) -> bool:
        """Whether a complete value precedes the token."""
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


def _number(rejected: _RejectedToken) -> Iterator[tuple[str, str | None]]:
    if rejected.type != "number":
        return
    start = rejected.token["start"]
    if rejected.text[:start].rstrip().endswith(".["):
        yield "[ ] follows a name without a dot", f"write name[{rejected.shown}] for an element of a list"
    if rejected.before_type == "dot":
        yield f"{rejected.shown} is not a name", f"write [{rejected.shown}] for an element of a list"
    if rejected.shown.startswith("-") and rejected.after_value:
        yield "unknown operator -", _OPERATORS["-"]
    yield f"expected a value, found {rejected.shown}", f"write a number in backticks: `{rejected.shown}`"


def _subscript(rejected: _RejectedToken) -> Iterator[tuple[str, str | None]]:
    if rejected.before_type != "lbracket" or rejected.type not in (
        "literal",
        "quoted_identifier",
        "unquoted_identifier",
    ):
        return
    value = rejected.token["value"]
    if isinstance(value, str):
        name = value if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) else json.dumps(value, ensure_ascii=False)
        yield "[ ] cannot select a member", f"write .{name} for the member; [?{rejected.shown} == …] is a filter"


def _word(rejected: _RejectedToken) -> Iterator[tuple[str, str | None]]:
    before = rejected.before_shown.lower() if rejected.before_type == "unquoted_identifier" else ""
    if before == "not":
        yield "unknown operator not", "write ! for not"
    if rejected.type == "unquoted_identifier" and rejected.after_value:
        word = rejected.shown.lower()
        if word in _WORDS or word in WORDS:
            yield f"unknown operator {rejected.shown}", _WORDS.get(word)
        if before in WORDS:
            yield f"unknown operator {rejected.before_shown}", _WORDS.get(before)
        if rejected.before_type == "current":
            yield (
                f"expected an operator or the end after @, found {rejected.shown}",
                f'quote a member of that name: "@{rejected.shown}"',
            )
        if rejected.before_type == "unquoted_identifier":
            yield (
                f"expected an operator or the end, found {rejected.shown}",
                f'quote a name that contains a space: "{rejected.before_shown} {rejected.shown}"',
            )


def _operator(rejected: _RejectedToken) -> Iterator[tuple[str, str | None]]:
    if rejected.type == "star" and rejected.after_value:
        yield "unknown operator *", _OPERATORS["*"]
    if rejected.type == "expref" and rejected.after_value:
        yield "unknown operator &", "write && for and"
    if rejected.type == "gt" and rejected.before_type == "lt":
        yield "unknown operator <>", "write != for unequal"
    if rejected.type == "literal" and rejected.before_type == "dot" and isinstance(rejected.token["value"], str):
        name = json.dumps(rejected.token["value"], ensure_ascii=False)
        yield "write a name in double quotes, or without quotes", f"write .{name}"
    if rejected.type == "colon" and rejected.before and rejected.after and rejected.opener is None:
        name = json.dumps(rejected.text[rejected.before["start"] : rejected.after["stop"]], ensure_ascii=False)
        if rejected.before_type == "unquoted_identifier" and rejected.after["type"] in (
            "unquoted_identifier",
            "number",
        ):
            yield "an unquoted name cannot contain :", f"quote a name that contains a colon: {name}"
    if rejected.type == "lbrace" and rejected.after_value:
        yield f"expected an operator or the end, found {rejected.shown}", "write a dot before it: name.{key: value}"
    if rejected.type == "dot" and rejected.before_type == "dot":
        yield "recursive search is not supported", "name each member of the path, or use * for any member"
    if rejected.type == "dot" and not rejected.before:
        yield "an expression cannot start with a dot", "start a path with a name (a.b), or with @ for the current value"


def _bracket(rejected: _RejectedToken) -> Iterator[tuple[str, str | None]]:
    opener = rejected.opener
    if rejected.type in CLOSERS and opener is None:
        yield f"unexpected {rejected.shown}: no bracket is open", None
    if rejected.type in CLOSERS and opener is not None and OPENERS[opener["type"]] != rejected.type:
        sign = _SIGNS[OPENERS[opener["type"]]]
        yield (
            f"expected {sign}, found {rejected.shown}",
            f"{opener['value']} at character {opener['start'] + 1} is not closed",
        )
    if rejected.type in CLOSERS or rejected.type == "comma":
        if (
            rejected.before_type in ("unquoted_identifier", "quoted_identifier")
            and opener
            and opener["type"] == "lbrace"
        ):
            yield (
                "expected a name and a value inside { }",
                f"write {{{rejected.before_shown}: {rejected.before_shown}}}",
            )
        if not rejected.after_value:
            yield f"expected a value, found {rejected.shown}", None


def _key(rejected: _RejectedToken) -> Iterator[tuple[str, str | None]]:
    if rejected.type == "lbrace" and rejected.before_type == "lbrace":
        yield "expected the name of a member, found {", "write the value without {{ }}"
    if rejected.before_type in ("lbrace", "comma") and (opener := rejected.opener) and opener["type"] == "lbrace":
        if rejected.type == "literal" and isinstance(rejected.token["value"], str):
            name = json.dumps(rejected.token["value"], ensure_ascii=False)
            yield "expected the name of a member, found a string", f"write {name} in double quotes, or without quotes"
        yield f"expected the name of a member, found {rejected.shown}", "write a member as name: value"


def _call(rejected: _RejectedToken) -> Iterator[tuple[str, str | None]]:
    if rejected.type == "lparen" and rejected.before_type == "quoted_identifier":
        yield "write the name of a function without quotes", None
    if (
        rejected.after is not None
        and rejected.after["type"] == "lparen"
        and rejected.type in ("rparen", "literal", "rbracket")
    ):
        yield "this is not a function", "write a call as name(arguments)"


_RULES: Final[tuple[Callable[[_RejectedToken], Iterator[tuple[str, str | None]]], ...]] = (
    _call,
    _number,
    _subscript,
    _word,
    _operator,
    _bracket,
    _key,
)


def _unexpected(text: str, tokens: list[Token], error: exceptions.ParseError) -> ExpressionError:
    """Return the error for a token that the parser rejected, with the message of the first rule that has one."""
    start = error.lex_position
    if error.msg.startswith("Quoted identifier"):  # its position is 0
        pairs = pairwise(tokens)
        start = next(b["start"] for a, b in pairs if (a["type"], b["type"]) == ("quoted_identifier", "lparen"))
    index = next((i for i, token in enumerate(tokens) if token["start"] == start), len(tokens) - 1)
    rejected = _RejectedToken(text, tokens, index)
    if rejected.type == "eof":
        return _unfinished(text, tokens)
    message, hint = f"unexpected {rejected.shown}", None
    if rejected.after_value:
        message = f"expected an operator or the end, found {rejected.shown}"
    for rule in _RULES:
        found = next(rule(rejected), None)
        if found is not None:
            message, hint = found
            break
    hint = rewritten(text) or hint
    length = rejected.token["stop"] - rejected.token["start"]
    return ExpressionError(message, code="IFX200", text=text, position=start, length=max(length, 1), hint=hint)
