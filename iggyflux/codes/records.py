"""Records: evaluation, values, names, timestamps, collisions (IFX3xx)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
    Code(
        "IFX300",
        "value of another type",
        meaning="A function got a value of a type that it does not take: most often null, because a field is missing.",
        fix="Convert the value, or guard it: `name && upper(name)`; `coalesce(name, 'none')`.",
        example="""abs(a) on {"a": "x"}""",
    ),
    Code(
        "IFX301",
        "values that can't be compared",
        meaning="A text and a number have no order, so < <= > >= between them fail.",
        fix="Compare what `parse_number(...)` gives.",
        example="""a < `2` on {"a": "1"}""",
    ),
    Code(
        "IFX302",
        "no such number",
        meaning="The calculation has no result: a division by zero, a number out of range, an infinity.",
        fix="Guard it: `if(b != `0`, divide(a, b))`.",
        example="""divide(a, b) on {"a": 1, "b": 0}""",
    ),
    Code(
        "IFX303",
        "result too large",
        meaning=(
            "A function would make a text of more than 16 million characters or a list of more than a million "
            "elements, or a value is nested too deeply."
        ),
        fix="Refuse such messages with `where`.",
    ),
    Code(
        "IFX304",
        "value that a function can't take",
        meaning="The value has the right type, and its content does not suit the function: a text that is no number.",
        fix="Guard it with `if` and `regex_match`, or use a function that gives null, such as `to_number`.",
        example="""parse_number(a) on {"a": "n/a"}""",
    ),
    Code(
        "IFX310",
        "empty name",
        meaning=(
            "A measurement, a tag's key or a field's key came out as the empty string, or a tag's value did "
            "where none may."
        ),
        fix="Give the expression a `default`, or refuse such messages with `where`.",
        example="measurement: \"''\"",
    ),
    Code(
        "IFX311",
        "control character in a name",
        meaning=(
            "A measurement, key or tag value holds a character from U+0000 to U+001F, or U+007F. Servers "
            "store it under another name, take a line feed for the start of another line, or refuse the line."
        ),
        fix="Clean the value with `replace` or `trim`, or set `invalid_names: replace`.",
        example='a tag whose value is "a\\nb"',
    ),
    Code(
        "IFX312",
        "backslash that servers lose",
        meaning=(
            "A backslash stands in a measurement or in a field's key, or at the end of a tag's key or value. "
            "Depending on the version such a point is lost in silence, stored under another name, refused, or"
            " kills the server."
        ),
        fix="Replace the backslash in the expression, or set `invalid_names: replace`.",
        example='a tag whose value is "C:\\\\"',
    ),
    Code(
        "IFX313",
        "measurement that servers lose",
        meaning=(
            "A measurement holds `=` (the point is stored where no query finds it) or begins with `#` (the "
            "line is a comment)."
        ),
        fix="Name the measurement otherwise, or set `invalid_names: replace`.",
        example='measurement: {const: "a=b"}',
    ),
    Code(
        "IFX314",
        "reserved name",
        meaning=(
            "`time` can be neither tag nor field; `_field`, `_measurement`, `_time`, `_value`, `_start`, "
            "`_stop`, `table` and `result` cannot be keys of tags: servers refuse them, or every Flux query "
            "that meets them fails."
        ),
        fix="Name the tag or field otherwise, or set `invalid_names: replace`, which appends `_`.",
        example="tags: {_time: at}",
    ),
    Code(
        "IFX315",
        "text that is not Unicode",
        meaning="A name, tag value or string holds half of a surrogate pair, which UTF-8 cannot encode.",
        fix="Correct the producer: it cuts text in the middle of a character.",
        example='{"name": "\\ud83d"}',
    ),
    Code(
        "IFX316",
        "too long",
        meaning=(
            "A name, tag value or string has more than 65535 bytes, or measurement, tags and field key have "
            "so many together: more than every server takes."
        ),
        fix="Shorten the value in the expression, or leave it out.",
    ),
    Code(
        "IFX317",
        "tag and field of one name",
        meaning=(
            "A point has a tag and a field of the same key. 1.x and 2.x store both and can't tell them apart "
            "when read, 3.x refuses."
        ),
        fix='Rename one of them, or exclude the key from `"*"`.',
        example="tags: {a: x}, fields: {a: y}",
    ),
    Code(
        "IFX319",
        "no field left",
        meaning="Every field was null or missing, and a point needs at least one.",
        fix="Give a field a `default`, or skip such messages with `where`.",
        example='fields: {a: a} and the message {"b": 1}',
    ),
    Code(
        "IFX320",
        "not a finite number",
        meaning="Line protocol has no NaN and no infinity.",
        fix="Give the expression another value, or null.",
    ),
    Code(
        "IFX321",
        "integer out of range",
        meaning="An integer field holds -2^63 to 2^63-1, an unsigned field 0 to 2^64-1.",
        fix="Take another type: `unsigned`, `float` or `string`.",
        example="{type: integer} and 9223372036854775808",
    ),
    Code(
        "IFX322",
        "time out of range",
        meaning=(
            "Times are nanoseconds of int64: from 1677-09-21 to 2262-04-11. A number far outside is mostly "
            "one in another unit than `format` says."
        ),
        fix="Correct `format` (`unix_s`, `unix_ms`, `unix_us`, `unix_ns`).",
        example="{format: unix_s} and 1700000000000000",
    ),
    Code(
        "IFX323",
        "no unsigned in this dialect",
        meaning="Dialect v1 (InfluxDB 1.x) has no unsigned integers.",
        fix="Take `type: integer`, or another dialect.",
        example="{type: unsigned} with --dialect v1",
    ),
    Code(
        "IFX324",
        "not of a point's types",
        meaning=(
            "A point is made of strings, and fields are floats, integers, unsigned integers, strings or booleans."
        ),
        fix="Convert the value before it goes into the point.",
    ),
    Code(
        "IFX330",
        "not a time",
        meaning="A value does not say one instant in the form that `format` names.",
        fix=(
            "Correct `format`, or the expression. RFC 3339 needs `T`, seconds and an offset; a leap second "
            "(`:60`) and `24:00` are no times of a server."
        ),
        example='{format: rfc3339} and "2026-01-31 12:00"',
    ),
    Code(
        "IFX331",
        "local time that is not one instant",
        meaning="When clocks change, an hour of a zone's local time comes twice, and another never.",
        fix="Have the producer send UTC or an offset, and read it with `rfc3339` or `%z`.",
        example='"2023-10-29 02:30" in Europe/Berlin',
    ),
    Code(
        "IFX332",
        "pattern that says no instant",
        meaning=(
            "A pattern of `timestamp` or `format_time` has an unknown directive, or leaves a part of the date"
            " open. `%Z` and `%c`, `%x`, `%X` are refused: they mean different things in different places."
        ),
        fix="Say the whole date (`%Y`, `%m`, `%d`), each part once, and the offset with `%z` or `timezone`.",
        example="format: '%d.%m. %H:%M'",
    ),
    Code(
        "IFX333",
        "unknown time zone",
        meaning="`timezone` is not a name of the IANA time zone database.",
        fix="Write it as `Europe/Berlin` or `UTC`.",
        example="timezone: CEST",
    ),
    Code(
        "IFX340",
        "value of the wrong type",
        meaning=(
            "A value is not of the type that the field or tag has. Types are declared, never guessed from one value."
        ),
        fix=(
            "Declare the type that the values have (`type: string`), allow `cast: true`, "
            'or go into the object: `a.b`, or `"*": a` for all that it holds.'
        ),
        example='"21.5" (a string) for a field without `type`, which is a float',
    ),
    Code(
        "IFX341",
        "number out of range",
        meaning="A number is outside of int64 or uint64, or not finite.",
        fix="Declare another type, or leave such values out with an expression or with `where`.",
        example="2**63 for `type: integer`; -1 for `type: unsigned`",
    ),
    Code(
        "IFX342",
        "number that the type cannot hold exactly",
        meaning="An integer has no double of its own, or a number that should be whole has a fraction.",
        fix="Declare `type: integer`, or round in the expression: `round(x)`.",
        example="9007199254740993 (2**53 + 1) for a float; 3.7 for `type: integer`",
    ),
    Code(
        "IFX343",
        "for_each needs a list",
        meaning="The expression of `for_each` gave something that is neither a list nor null.",
        fix="Point it at the list; `items(object)` makes a list of an object's members, `[@]` one of a single value.",
        example="for_each: 'device' on {\"device\": {…}}",
    ),
    Code(
        "IFX344",
        "measurement that is no string",
        meaning="The measurement came out as a number, boolean, list or object.",
        fix="Use a constant, `{const: name}`, or `to_string(…)`.",
    ),
    Code(
        "IFX345",
        "required value is missing",
        meaning="A measurement, or a tag or field with `required: true`, is null or missing (for names also: empty).",
        fix="Give the tag or field a `default`, drop `required`, or skip such messages with `where`.",
    ),
    Code(
        "IFX346",
        "no field is left",
        meaning="Every field of the point is null or missing; line protocol has no point without a field.",
        fix=(
            "Give one field a `default`, or skip such messages with `where`. Look whether the paths are spelled as in "
            "the message; `xs[]` takes the lists that are elements of `xs` apart, `xs[*]` does not."
        ),
    ),
    Code(
        "IFX347",
        "one name from two sources",
        meaning='Two members that `"*"` takes have one name, for instance after `flatten` or `invalid_names: replace`.',
        fix='Use another separator, a prefix (`"prefix_*"`), or leave one out with `exclude`.',
        example='{"a_b": 1, "a": {"b": 2}} with `flatten: "_"`',
    ),
    Code(
        "IFX348",
        "star needs an object",
        meaning='The expression of `"*"` gave something that is neither an object nor null.',
        fix=(
            "Point it at the object whose members are wanted; `@` is the message itself. A list becomes members with "
            '`{expr: "{cell: list}", flatten: "_"}`: cell_0, cell_1.'
        ),
    ),
    Code(
        "IFX349",
        "timestamp that cannot be read",
        meaning="The timestamp is not of the declared format, or outside of the years 1677 to 2262.",
        fix="Correct `format`: unix_s, unix_ms, unix_us, unix_ns, rfc3339, flexible or a strptime pattern.",
    ),
    Code(
        "IFX350",
        "timestamp is missing",
        meaning=(
            "The timestamp's expression gave null. The wall clock is never used: a redelivery would make another point."
        ),
        fix=(
            "`default: message` takes the message's own timestamp where the value is null. Inside `for_each` paths "
            "start at the element: `root()` is the whole message, and `pair()` keeps what is around an inner list."
        ),
    ),
    Code(
        "IFX351",
        "two points of one message overwrite each other",
        meaning="They have the same measurement, tags and time, so that a server would keep one of them.",
        fix=(
            "Add a tag that tells them apart (`index()`), a finer timestamp, or say `collisions: merge` or `keep_last`."
        ),
    ),
    Code(
        "IFX352",
        "message outside of what Iggy takes",
        meaning=(
            "A reader's payload is empty or has more than 64 MB, or a key or a header's value has more than 255 bytes."
        ),
        fix=(
            "Send less in one message (`for_each: row` or `series`, a smaller `cursor.window`), shorten a key or "
            "header (`substring(x, 0, 60)`, `hash(x)`), or put what is long into the payload."
        ),
        example="key: description, where that is a text of 300 characters",
    ),
)
