"""Checks of an expression when it is compiled: names, arity, types, constants, with places of errors in the text.

jmespath finds none of this before evaluation, and its trees have no places.  The places come from the tokens: in the
order of the text, the n-th name, literal or `@` of the tree is the n-th of the tokens.  A call that can only fail is an
error even where it would never be evaluated.  An expression that may work is never rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from iggyflux.errors import EvaluationError, ExpressionError, closest, counted
from iggyflux.expressions.operators import WORDS
from iggyflux.expressions.syntax import CLOSERS, OPENERS, Node, Token, children_in_order, rewritten
from iggyflux.functions import FUNCTIONS, META_NAMES, ConstantError, Function, Parameter
from iggyflux.functions.table import in_words, make_check, type_of
from iggyflux.records import JSON

Tables: TypeAlias = Mapping[str, Mapping[str, JSON]]
Kinds: TypeAlias = frozenset[str]
"""The JMESPath types that a value can have."""

ALL: Final[Kinds] = frozenset(("null", "boolean", "number", "string", "array", "object"))
_NULL: Final[Kinds] = frozenset(("null",))
_BOOLEAN: Final[Kinds] = frozenset(("boolean",))
_LEAVES: Final = frozenset(("unquoted_identifier", "quoted_identifier", "literal", "current"))
_LEAF_NODES: Final = frozenset(("field", "literal", "current", "function_expression", "key_val_pair"))


_AFTER_PATH: Final = CLOSERS | {"eof", "and", "or", "pipe", "comma", "eq", "ne", "lt", "lte", "gt", "gte"}
_PARTS: Final = {"field": "object", "index": "array", "slice": "array"}
"""The type that a value must have for a step to find anything."""


class Checker:
    """Checks the tree of one text; afterwards `warnings` holds its doubtful parts.

    The node of a call gets two more members: `function`, its entry in the table, and `constants`, its prepared constant
    arguments by position.
    """

    def __init__(
        self,
        text: str,
        tokens: list[Token],
        tables: Tables,
        meta_names: Iterable[str],
        parents: int | None = None,
    ) -> None:
        self.text = text
        self.tokens = tokens
        self.tables = tables
        self.meta_names = list(meta_names)
        self.parents = parents
        self.warnings: list[ExpressionError] = []
        self.places: dict[int, int] = {}

    def spans(self, node: Node) -> dict[int, tuple[int, int]]:
        """Return where the first name, literal or `@` of each node starts and stops in the text, by the node's id."""
        leaves = (i for i, token in enumerate(self.tokens) if token["type"] in _LEAVES)
        self._place(node, leaves.__next__)
        tokens = {key: self.tokens[index] for key, index in self.places.items() if index >= 0}
        return {key: (token["start"], token["stop"]) for key, token in tokens.items()}

    def check(self, node: Node) -> Kinds:
        """Check the whole tree and return the types of its value; raise ExpressionError at the first fault."""
        leaves = (i for i, token in enumerate(self.tokens) if token["type"] in _LEAVES)
        self._place(node, leaves.__next__)
        for token in self.tokens:
            if "deprecated" in token:
                message = f"{self._shown(token)} is not JSON and is read as a string"
                hint = f"write '{token['value']}' for the string"
                if token["value"][:1] in ("{", "["):
                    hint = "JSON needs double quotes around names and strings"
                self._warn("IFX221", message, token, hint)
        return self._kinds(node, ALL)

    def _place(self, node: Node, next_leaf: Callable[[], int]) -> int:
        """Note the first token of each node that has one; return that of `node`, or -1."""
        first = [next_leaf()] if node["type"] in _LEAF_NODES else []
        first += [self._place(child, next_leaf) for child in children_in_order(node)]
        found = [index for index in first if index >= 0]
        self.places[id(node)] = min(found) if found else -1
        return self.places[id(node)]

    # --- problems ---

    def _shown(self, token: Token) -> str:
        return self.text[token["start"] : token["stop"]]

    def _error(
        self, code: str, message: str, start: int, stop: int, hint: str | None, instead: str | None = None
    ) -> ExpressionError:
        return ExpressionError(
            message, code=code, text=self.text, position=start, length=stop - start, hint=hint, instead=instead
        )

    def _at(
        self, code: str, message: str, node: Node, hint: str | None = None, instead: str | None = None
    ) -> ExpressionError:
        """Return an error at the name or literal that is `node`."""
        token = self.tokens[max(self.places[id(node)], 0)]
        return self._error(code, message, token["start"], token["stop"], hint, instead)

    def _at_argument(
        self, code: str, message: str, call: Node, position: int, hint: str | None = None
    ) -> ExpressionError:
        """Return an error at an argument, all of it."""
        spans = self._arguments(call)
        if len(spans) != len(call["children"]):  # jmespath accepts missing commas
            return self._at(code, message, call, hint)
        start, stop = spans[position]
        return self._error(code, message, start, stop, hint)

    def _arguments(self, call: Node) -> list[tuple[int, int]]:
        """Return where each argument of a call starts and stops, by the commas between them."""
        spans: list[tuple[int, int]] = []
        depth, first, last = 0, None, None
        for token in self.tokens[self.places[id(call)] + 2 :]:
            kind = token["type"]
            if depth == 0 and (kind == "comma" or kind in CLOSERS):
                if first is not None and last is not None:
                    spans.append((first["start"], last["stop"]))
                if kind != "comma":
                    break
                first = None
                continue
            depth += (kind in OPENERS) - (kind in CLOSERS)
            first, last = first or token, token
        return spans

    def _warn(self, code: str, message: str, token: Token, hint: str, instead: str | None = None) -> None:
        self.warnings.append(self._error(code, message, token["start"], token["stop"], hint, instead))

    # --- types, from the leaves up; `given` are the types of the value that a node is evaluated on ---

    def _kinds(self, node: Node, given: Kinds) -> Kinds:
        step: Callable[[Node, Kinds], Kinds] = getattr(self, f"_kinds_{node['type']}")
        return step(node, given)

    def _kinds_current(self, _: Node, given: Kinds) -> Kinds:
        return given

    _kinds_identity = _kinds_current

    def _kinds_literal(self, node: Node, _: Kinds) -> Kinds:
        return frozenset((type_of(node["value"]),))

    def _kinds_field(self, node: Node, given: Kinds) -> Kinds:
        index = self.places[id(node)]
        word, token = node["value"], self.tokens[index]
        after_dot = index > 0 and self.tokens[index - 1]["type"] == "dot"
        if word in ("null", "true", "false") and token["type"] == "unquoted_identifier" and not after_dot:
            hint = f'write `{word}` in backticks for the literal, or "{word}" in double quotes for the member'
            raise self._at("IFX206", f"{word} without backticks is the name of a member", node, hint, f"`{word}`")
        self._require("object", given, node)
        return ALL if "object" in given else _NULL

    def _kinds_index(self, node: Node, given: Kinds) -> Kinds:
        self._require("array", given, node)
        return ALL if "array" in given else _NULL

    def _kinds_slice(self, node: Node, given: Kinds) -> Kinds:
        self._require("array", given, node)
        return given & frozenset(("array",)) | (frozenset() if given == {"array"} else _NULL)

    def _kinds_pipe(self, node: Node, given: Kinds) -> Kinds:
        left = None
        for child in node["children"]:
            if left is not None and child["type"] in _PARTS:
                self._require(_PARTS[child["type"]], given, child, left)
            given, left = self._kinds(child, given), child
        return given

    _kinds_subexpression = _kinds_pipe
    _kinds_index_expression = _kinds_pipe

    def _kinds_projection(self, node: Node, given: Kinds) -> Kinds:
        left, right = node["children"]
        base = self._kinds(left, given)
        self._require("array", base, node, left)
        self._kinds(right, ALL)
        return self._kinds_slice(node, base)

    def _kinds_value_projection(self, node: Node, given: Kinds) -> Kinds:
        left, right = node["children"]
        base = self._kinds(left, given)
        self._require("object", base, node, left)
        self._kinds(right, ALL)
        return frozenset(("array" if kind == "object" else "null") for kind in base)

    def _kinds_filter_projection(self, node: Node, given: Kinds) -> Kinds:
        left, right, condition = node["children"]
        base = self._kinds(left, given)
        self._require("array", base, node, left)
        self._kinds(condition, ALL)
        self._kinds(right, ALL)
        return self._kinds_slice(node, base)

    def _kinds_flatten(self, node: Node, given: Kinds) -> Kinds:
        left = node["children"][0]
        base = self._kinds(left, given)
        self._require("array", base, node, left)
        return self._kinds_slice(node, base)

    def _require(self, kind: str, given: Kinds, node: Node, left: Node | None = None) -> None:
        """Raise ExpressionError if `node` takes a part that a value of the types `given` never has.

        `left` gives the value.  Null has no parts either, but a constant null is not an error.
        """
        if kind in given or given <= _NULL:
            return
        part = "members" if kind == "object" else "elements"
        found = in_words(sorted(given - _NULL))
        hint = None
        if left is not None and left["type"] == "not_expression":
            hint = f"! binds more tightly than what follows: write !({self._after_not(left)})"
        elif node["type"] == "field" and given <= {"array", "null"}:
            hint = f"write [].{self._shown(self.tokens[self.places[id(node)]])} for that member of each element"
        raise self._at("IFX215", f"{found} has no {part}, so this is always null", node, hint)

    def _after_not(self, node: Node) -> str:
        """Return the text after the `!` of `node`, up to the end of the path."""
        start = max(self.places[id(node)], 0)
        while self.tokens[start]["type"] != "not":
            start -= 1
        depth, end = 0, start + 1
        while depth or self.tokens[end]["type"] not in _AFTER_PATH:
            depth += (self.tokens[end]["type"] in OPENERS) - (self.tokens[end]["type"] in CLOSERS)
            end += 1
        return self.text[self.tokens[start]["stop"] : self.tokens[end - 1]["stop"]].strip()

    def _kinds_multi_select_list(self, node: Node, given: Kinds) -> Kinds:
        for child in node["children"]:
            self._kinds(child, given)
        return (given & _NULL) | {"array"} if given != _NULL else _NULL

    def _kinds_multi_select_dict(self, node: Node, given: Kinds) -> Kinds:
        for child in node["children"]:
            self._kinds(child["children"][0], given)
        return (given & _NULL) | {"object"} if given != _NULL else _NULL

    def _kinds_comparator(self, node: Node, given: Kinds) -> Kinds:
        left, right = node["children"]
        self._doubt_same_sides(node)
        kinds = self._kinds(left, given), self._kinds(right, given)
        if node["value"] in ("eq", "ne"):
            for child, other in ((left, right), (right, left)):
                self._doubt_quotes(child, other)
            return _BOOLEAN
        ordered = frozenset(("number", "string"))
        if all(len(kind) == 1 and kind <= ordered for kind in kinds) and kinds[0] != kinds[1]:
            words = " with ".join(next(iter(kind)) for kind in kinds)
            raise self._at("IFX205", f"cannot compare {words}", left, "convert a string with parse_number(…)")
        if not (kinds[0] & ordered and kinds[1] & ordered):
            return _NULL
        return _BOOLEAN if kinds[0] <= ordered and kinds[1] <= ordered else _BOOLEAN | _NULL

    def _doubt_quotes(self, node: Node, other: Node) -> None:
        """Warn of `state == "ok"`, which compares with a member named ok: hardly what was meant."""
        token = self.tokens[max(self.places[id(node)], 0)]
        if node["type"] == "field" and token["type"] == "quoted_identifier" and other["type"] != "literal":
            message = f"{self._shown(token)} in double quotes is the name of a member"
            self._warn("IFX220", message, token, f"write '{node['value']}' for the string", f"'{node['value']}'")

    def _doubt_same_sides(self, node: Node) -> None:
        """Warn of `key == key`, whose result is the same for every message.  It is called before the sides are."""
        left, right = node["children"]
        if repr(left) != repr(right):
            return
        token = self.tokens[max(self.places[id(left)], 0)]
        hint = "inside [?…] a name is a member of the element; root() is the whole payload"
        self._warn("IFX222", "both sides are the same", token, hint)

    def _kinds_and_expression(self, node: Node, given: Kinds) -> Kinds:
        self._doubt_same_sides(node)
        left, right = (self._kinds(child, given) for child in node["children"])
        return (left - {"number"}) | right

    def _kinds_or_expression(self, node: Node, given: Kinds) -> Kinds:
        self._doubt_same_sides(node)
        last = node["children"][1]
        if last["type"] == "field" and str(last["value"]).isidentifier():  # such a name needs no quotes
            self._doubt_quotes(last, node["children"][0])
        left, right = (self._kinds(child, given) for child in node["children"])
        return (left - {"null"}) | right

    def _kinds_not_expression(self, node: Node, given: Kinds) -> Kinds:
        self._kinds(node["children"][0], given)
        return _BOOLEAN

    def _kinds_expref(self, node: Node, _: Kinds) -> Kinds:
        hint = "use & only for arguments, as in sort_by(list, &key); write && for a logical and"
        before = self.tokens[: max(self.places[id(node)], 0)]
        sign = next(token for token in reversed(before) if token["type"] == "expref")
        raise self._error("IFX213", "unexpected &", sign["start"], sign["stop"], hint)

    # --- calls ---

    def _kinds_function_expression(self, node: Node, given: Kinds) -> Kinds:
        name, children = node["value"], node["children"]
        function = FUNCTIONS.get(name)
        if function is None:
            hint = rewritten(self.text) if name.lower() in WORDS else None
            hint = hint or _OTHER_NAMES.get(name.lower().replace("_", ""))
            close = None
            if hint is None:
                close = _similar_function(name)
                hint = f"did you mean {close}?" if close else "docs/functions.md lists all functions"
                stop = self.tokens[max(self.places[id(node)], 0)]["stop"]
                if self.text[stop : stop + 1].isspace():
                    hint, close = 'quote the name of a member that contains a space or a bracket: "name (unit)"', None
            raise self._at("IFX203", f"unknown function {name}()", node, hint, close)
        count = len(children)
        if count < function.least or (function.most is not None and count > function.most):
            raise self._at("IFX204", f"{name}() takes {_arity(function)}, found {count}", node, function.signature)
        for position, child in enumerate(children):
            self._check_argument(node, function, position, child, given)
        node["function"] = function
        node["constants"] = self._constants(node, function)
        return frozenset(function.result or ALL) | (_NULL if function.propagates_null else frozenset())

    def _doubt_quoted_argument(self, node: Node, parameter: Parameter, position: int) -> None:
        """Warn of `split(a, ".")` and `starts_with(a, "x")`, whose argument is a member named `.` or `x`."""
        token = self.tokens[max(self.places[id(node)], 0)]
        if node["type"] != "field" or token["type"] != "quoted_identifier" or "string" not in (parameter.types or ALL):
            return
        name = str(node["value"])
        is_plain = name.isascii() and name.isidentifier() and name not in ("null", "true", "false")
        if (is_plain and position > 0) or not re.search(r"\w", name):
            message = f"{self._shown(token)} in double quotes is the name of a member"
            text = name.replace("\\", "\\\\").replace("'", "\\'")
            self._warn("IFX220", message, token, f"write '{text}' for the string", f"'{text}'")

    def _check_argument(self, call: Node, function: Function, position: int, child: Node, given: Kinds) -> None:
        parameter = function.parameters[min(position, len(function.parameters) - 1)]
        checked = position < len(function.parameters) or not function.builtin  # like jmespath, which checks only these
        if parameter.constant and child["type"] != "literal":
            hint = None
            if child["type"] == "field":
                hint = f"did you mean '{child['value']}'?"
            message = f"{parameter.name} of {function.name}() must be a literal"
            raise self._at_argument("IFX209", message, call, position, hint)
        self._doubt_quoted_argument(child, parameter, position)
        if child["type"] == "expref":
            self._kinds(child["children"][0], ALL)
            kinds = frozenset(("expref",))
        else:
            kinds = self._kinds(child, given)
        types = parameter.types or tuple(ALL)
        allowed = {word.partition("-")[0] for word in types}
        if function.propagates_null and not parameter.constant:
            allowed.add("null")
        if (checked and not kinds & allowed) or (kinds == {"expref"} and "expref" not in allowed):
            found = (
                "a value" if kinds == ALL else "an expression (&…)" if "expref" in kinds else in_words(sorted(kinds))
            )
            hint = f"write &{self._text_of(call, position)}" if allowed == {"expref"} else function.signature
            expected = in_words(parameter.types) if parameter.types else "a value"
            message = f"{function.name}() expects {expected} as {parameter.name}, found {found}"
            raise self._at_argument("IFX205", message, call, position, hint)
        if checked and child["type"] == "literal" and parameter.types:
            self._check_literal(call, function, parameter, position, child["value"])

    def _check_literal(self, call: Node, function: Function, parameter: Parameter, position: int, value: Any) -> None:
        """Check the elements of a literal list, as at run time."""
        try:
            make_check(function, parameter)(value)
        except EvaluationError as error:
            raise self._at_argument("IFX205", error.reason, call, position, function.signature) from error

    def _text_of(self, call: Node, position: int) -> str:
        spans = self._arguments(call)
        return self.text[slice(*spans[position])] if len(spans) == len(call["children"]) else "key"

    def _constants(self, call: Node, function: Function) -> dict[int, Any]:
        """Return what replaces the constant arguments: the values, or what `prepare` or the document makes of them."""
        names = [parameter.name for parameter in function.parameters]
        pairs = zip(function.parameters, call["children"], strict=False)
        given = {parameter.name: child["value"] for parameter, child in pairs if parameter.constant}
        for name, value in given.items():
            given[name] = self._known(call, function, name, names.index(name), value)
        if function.prepare is not None:
            try:
                given |= function.prepare(given, len(call["children"]))
            except ConstantError as error:
                position = names.index(error.parameter)
                message = f"{function.name}(): {error.reason}"
                raise self._at_argument("IFX212", message, call, position, error.hint) from error
        if function.name == "parent" and self.parents is not None and given["level"] > self.parents:
            raise self._no_parent(call, given["level"])
        return {names.index(name): value for name, value in given.items()}

    def _no_parent(self, call: Node, level: int) -> ExpressionError:
        """Return the error for an element that is not inside another one at `level`."""
        if self.parents:
            message = f"{level} levels up, but there are only {self.parents} around this element"
            hint = "root() is the whole message"
            if self.parents == 1:
                message, hint = "there is only one element around this one", "parent() is that one, root() the message"
        else:
            message = "there is no element around this one"
            hint = 'root() is the whole message; parent() needs nested lists, such as `for_each: ["outer", "inner"]`'
        return self._at("IFX216", message, call, hint)

    def _known(self, call: Node, function: Function, name: str, position: int, value: Any) -> Any:
        """Check the names that are known before any message, coordinates and tables; return what replaces `value`."""
        if function.name == "meta" and value not in self.meta_names:
            hint = _suggest(value, self.meta_names)
            raise self._at_argument("IFX207", f"unknown coordinate {value!r} of meta()", call, position, hint)
        if function.name == "lookup" and name == "table":
            if value not in self.tables:
                hint = _suggest(value, list(self.tables)) if self.tables else "the document has no tables"
                raise self._at_argument("IFX208", f"unknown table {value!r}", call, position, hint)
            return self.tables[value]
        return value


_CLOCK: Final = "use meta('timestamp'): the clock is not available, since a message must always make the same point"
_OTHER_NAMES: Final = {
    "len": "did you mean length?",
    "size": "did you mean length?",
    "count": "did you mean length?",
    "append": "write [a, [b]][] for a list and one more element",
    "flatten": "write a[] for the elements of the lists in a list",
    "concat": "concatenate strings with join('', [a, b]) or format('{}{}', a, b)",
    "substr": "did you mean substring?",
    "slice": "did you mean substring? Write a[1:3] for a part of a list",
    "strip": "did you mean trim?",
    "lowercase": "did you mean lower?",
    "tolower": "did you mean lower?",
    "downcase": "did you mean lower?",
    "uppercase": "did you mean upper?",
    "toupper": "did you mean upper?",
    "upcase": "did you mean upper?",
    "int": "declare the field's type: {expr: a, type: integer, cast: true}; or convert it with parse_number",
    "integer": "declare the field's type: {expr: a, type: integer, cast: true}; or convert it with parse_number",
    "toint": "declare the field's type: {expr: a, type: integer, cast: true}; or convert it with parse_number",
    "float": "declare the field's type: {expr: a, type: float, cast: true}; or convert it with parse_number",
    "tofloat": "declare the field's type: {expr: a, type: float, cast: true}; or convert it with parse_number",
    "number": "did you mean to_number, or parse_number?",
    "str": "did you mean to_string?",
    "string": "did you mean to_string?",
    "now": _CLOCK,
    "today": _CLOCK,
    "uuid": "random values are not available, since a message must always make the same point; use meta('id')",
    "random": "random values are not available, since a message must always make the same point",
    "env": "write a constant as {const: value}: a mapping cannot read the environment",
    "not": "write ! for not",
    "and": "write && for and",
    "or": "write || for or",
    "mod": "did you mean modulo?",
    "sub": "did you mean subtract?",
    "minus": "did you mean subtract?",
    "plus": "did you mean add?",
    "mul": "did you mean multiply?",
    "times": "did you mean multiply?",
    "div": "did you mean divide?",
    "ifelse": "did you mean if?",
    "iif": "did you mean if?",
    "exists": "write a != `null`",
    "entries": "did you mean items?",
    "fromjson": "did you mean parse_json?",
    "tojson": "did you mean to_string?",
    "regex": "did you mean regex_match?",
    "match": "did you mean regex_match?",
    "regexextract": "did you mean regex_capture?",
    "extract": "did you mean regex_capture?",
    "gsub": "did you mean regex_replace?",
    "jsondecode": "did you mean parse_json?",
    "default": "did you mean coalesce? A tag or field also has `default`",
    "ifnull": "did you mean coalesce?",
    "nvl": "did you mean coalesce?",
    "timestamp": "did you mean parse_time, or meta('timestamp')?",
    "first": "write a[0] for the first element",
    "last": "write a[-1] for the last element",
    "get": "write a.b for a member, a[0] for an element; lookup reads a table of the document",
    "pow": "powers are not supported; use multiply(a, a)",
    "strftime": "did you mean format_time?",
    "strptime": "did you mean parse_time?",
}
"""Names that other tools use, without underscores, in lower case."""


def _similar_function(name: str) -> str | None:
    """Return the function of which `name` is a misspelling; many share letters with one that does something else."""
    if len(name) <= _SHORT_NAME:
        return closest(name, list(FUNCTIONS), likeness=0.66) if len(name) == _SHORT_NAME else None
    longer = [each for each in FUNCTIONS if len(each) >= _SHORT_NAME and name.startswith(each)]
    return closest(name, list(FUNCTIONS), likeness=0.75) or closest(name, longer)


_SHORT_NAME: Final = 3


def known_meta(kind: str | None) -> list[str]:
    """Return the names that `meta` knows in a document of `kind`, or in any document."""
    return list(META_NAMES[kind]) if kind is not None else [name for names in META_NAMES.values() for name in names]


def _suggest(word: str, known: list[str]) -> str:
    close = closest(word, known)
    return f"did you mean '{close}'?" if close else "known: " + ", ".join(known)


def _arity(function: Function) -> str:
    least, most = function.least, function.most
    if most is None:
        return f"at least {counted(least, 'argument')}"
    if least != most:
        return f"{least} or {most} arguments" if most == least + 1 else f"{least} to {most} arguments"
    return counted(least, "argument") if least else "no arguments"
