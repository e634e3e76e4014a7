"""Expressions, found when a document is compiled (IFX2xx)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX200",
        "not an expression",
        meaning="The text does not follow the grammar of JMESPath at the place shown.",
        fix="Follow the hint; docs/expressions.md shows the grammar by examples.",
        example="a = 1",
    ),
    Code(
        "IFX201",
        "not closed",
        meaning="A quote, a backtick or a bracket that opens at the place shown is never closed.",
        fix="Close it where its content ends.",
        example="readings[?ok",
    ),
    Code(
        "IFX202",
        "bad literal",
        meaning="Between backticks stands what is not JSON, or between double quotes what is not a JSON string.",
        fix="Write JSON between backticks (`5`, `null`), names in double quotes, texts in single quotes.",
        example='a == `{"b"}`',
    ),
    Code(
        "IFX203",
        "unknown function",
        meaning="There is no function of this name.  JMESPath would find out only when it gets there; we do at once.",
        fix="Correct the name; docs/functions.md lists all functions.",
        example="lenght(a)",
    ),
    Code(
        "IFX204",
        "wrong number of arguments",
        meaning="The function takes fewer or more arguments than it is given.",
        fix="Give it the arguments of the signature in the hint.",
        example="round()",
    ),
    Code(
        "IFX205",
        "type that can't fit",
        meaning="An argument, or one side of a comparison, can never have the type that is needed.",
        fix="Convert it (`parse_number`, `to_string`), or correct the order of the arguments.",
        example="starts_with(a, `5`)",
    ),
    Code(
        "IFX206",
        "literal without backticks",
        meaning="A bare null, true or false is the name of a field in JMESPath, which is hardly ever meant.",
        fix='Write `null` with backticks for the literal, or "null" in double quotes for the field.',
        example="readings != null",
    ),
    Code(
        "IFX207",
        "unknown coordinate",
        meaning="`meta` has no such name: it knows the coordinates of a message, or of a row in a reader.",
        fix="Use one of the names in the hint; `header('...')` reads the message's own headers.",
        example="meta('subject')",
    ),
    Code(
        "IFX208",
        "unknown table",
        meaning="`lookup` names a table that the document does not have.",
        fix="Correct the name, or add the table under `tables:`.",
        example="lookup('sites', id)",
    ),
    Code(
        "IFX209",
        "literal needed",
        meaning="The argument is looked at when the expression is compiled, so it cannot come from the message.",
        fix="Write a literal: 'text' in single quotes, a number in backticks.",
        example="meta(topic)",
    ),
    Code(
        "IFX211",
        "expression too large",
        meaning="The expression is longer than 16384 characters, or nested more than 100 levels deep.",
        fix="Split it, or put what it looks up into `tables:`.",
    ),
    Code(
        "IFX212",
        "constant that can't work",
        meaning="A literal argument is refused by its function: a pattern, a time format, a time zone, an algorithm.",
        fix="Follow the message; regular expressions are RE2's, without look-around and back-references.",
        example="regex_match(a, '(')",
    ),
    Code(
        "IFX213",
        "& out of place",
        meaning="`&` makes an expression an argument, and has no meaning elsewhere.",
        fix="Keep it to functions that take an expression, as `sort_by(list, &key)`; and is written `&&`.",
        example="[&a]",
    ),
    Code(
        "IFX214",
        "empty expression",
        meaning="There is nothing in the text but white space.",
        fix="Write `@` for the whole value, or leave the key out.",
        example=" ",
    ),
    Code(
        "IFX220",
        "name where a text was meant",
        meaning="A comparison with a name in double quotes compares with the field of that name (a warning).",
        fix="Write the text in single quotes.",
        example='state == "ok"',
    ),
    Code(
        "IFX221",
        "literal that is not JSON",
        meaning=(
            "What stands in backticks is not JSON, and JMESPath takes it as a text for old times' sake (a warning)."
        ),
        fix="Write the text in single quotes.",
        example="state == `ok`",
    ),
)
