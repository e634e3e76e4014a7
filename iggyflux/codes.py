"""Every code that a problem, failure or stop can carry, with its meaning and its cure: docs/errors.md is made of it.

A code is never reused or renumbered.  IFX1xx documents, 2xx expressions, 3xx records, 4xx payloads, 5xx command line
and samples, 6xx delivery and run, 7xx transports, 8xx pipeline files.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """`title` in a few words, `meaning` what was found, `fix` what to do, `example` what leads to it (may be empty)."""

    code: str
    title: str
    meaning: str
    fix: str
    example: str = ""


# --- IFX1xx documents ---
_DOCUMENTS: tuple[Code, ...] = (
    Code(
        "IFX100",
        "cannot read the file",
        meaning="The file is not there, is a folder, or may not be read.",
        fix="Correct the path, or the file's permissions.",
    ),
    Code(
        "IFX101",
        "not YAML",
        meaning="The text is not YAML 1.2. The place is where reading stopped; the mistake can stand before it.",
        fix=(
            "Correct it there: most often a quote, a bracket or the indentation. A document that is empty has "
            "this code too."
        ),
        example="points:\n- measurement: {const: env",
    ),
    Code(
        "IFX102",
        "not TOML",
        meaning="The text is not TOML 1.0. The place is where reading stopped.",
        fix="Correct it there: every text has quotes, every key one `=`.",
        example="kind = writer",
    ),
    Code(
        "IFX103",
        "not plain UTF-8 text",
        meaning=(
            "The document holds bytes that are not UTF-8, NUL bytes, control characters, line separators that "
            "editors show differently, or halves of surrogate pairs."
        ),
        fix="Save the file as UTF-8; write such a character as an escape inside double quotes.",
    ),
    Code(
        "IFX104",
        "too large",
        meaning=(
            "The document is larger than 1 MiB, nested deeper than 100, or its aliases stand for more than "
            "100,000 values."
        ),
        fix="Split the document, or write out what the aliases mean.",
        example="a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    ),
    Code(
        "IFX105",
        "a key that is there twice",
        meaning="One object has a key twice; YAML readers differ in which one counts.",
        fix="Keep one of them.",
        example="name: a\nname: b",
    ),
    Code(
        "IFX106",
        "a key that is no string",
        meaning="A key is a number, null, a boolean, a list or an object.",
        fix="Quote it.",
        example="fields: {1: a}",
    ),
    Code(
        "IFX107",
        "YAML that has no meaning here",
        meaning=(
            "A tag (`!…`), an alias without its anchor or inside of it, a second document, or another version of YAML."
        ),
        fix="Quote an expression that begins with `!`, `*` or `&`; write one document a file.",
        example="where: !active",
    ),
    Code(
        "IFX108",
        "a number that cannot be kept",
        meaning="Infinity, NaN, a number too large for a double, or one of more than 400 characters.",
        fix="Write another number; a text has quotes.",
        example="default: .inf",
    ),
    Code(
        "IFX109",
        "an expression without quotes",
        meaning=(
            "A value without quotes that YAML reads as something else: it begins with `@`, `*`, a backtick, "
            "`&`, `!`, `%`; it has brackets inside of `{…}`; or it goes on after a closing quote."
        ),
        fix="Put the whole expression in quotes, as the hint shows.",
        example="fields: {a: xs[0]}",
    ),
    Code(
        "IFX110",
        "unknown key",
        meaning=(
            "The object has no such key. Nothing is ignored, for a misspelt key would be a rule that does not hold."
        ),
        fix="Correct it as the hint says, or take it out; `iggyflux schema mapping` shows every key.",
        example="measurment: {const: env}",
    ),
    Code(
        "IFX111",
        "missing key",
        meaning="A key that must be there is not.",
        fix="Add it; the hint shows an example.",
        example="kind: writer",
    ),
    Code(
        "IFX112",
        "value of the wrong type",
        meaning="The key takes another type of value: a string, an object, a list …",
        fix="Write what is expected, as the hint shows.",
        example="from: readings",
    ),
    Code(
        "IFX113",
        "value that is not allowed",
        meaning="The key takes one of a few words.",
        fix="Choose one of them.",
        example="on_error: ignore",
    ),
    Code(
        "IFX114",
        "value out of bounds",
        meaning=(
            "The value has the right type but not the right form: too short, too long, too small, too large, "
            "there twice, or not of the pattern."
        ),
        fix="Write what is expected.",
        example="name: '!'",
    ),
    Code(
        "IFX115",
        "a constant where an expression is expected",
        meaning=(
            "Values are expressions, which are strings. A number or a boolean there would be a constant, and a "
            "constant says so. A list, an object or null is no expression either."
        ),
        fix="Write {const: 5}, or quote the expression.",
        example="tags: {site: 5}",
    ),
    Code(
        "IFX117",
        "keys that exclude each other",
        meaning="Two keys are given of which only one can count.",
        fix="Keep one of them.",
        example="from: {measurement: env, statement: SELECT 1}",
    ),
    Code(
        "IFX118",
        "payload option that cannot be",
        meaning="An option of the payload format has a value that the format cannot work with.",
        fix="Correct it as the message says.",
        example="payload: {format: text, pattern: '('}",
    ),
    Code(
        "IFX120",
        "a key that is a tag and a field",
        meaning=(
            "One name stands among the tags and among the fields of a point; 3.x refuses such points, and "
            "others give them back as two columns."
        ),
        fix="Give one of them another name.",
        example="tags: [id]\nfields: [id]",
    ),
    Code(
        "IFX121",
        "reserved name",
        meaning=(
            "`time` is never a tag or a field; `_field`, `_measurement`, `_time`, `_value`, `_start`, `_stop`, "
            "`table` and `result` are never tags: servers take such points and cannot give them back."
        ),
        fix="Give it another name.",
        example="tags: [time]",
    ),
    Code(
        "IFX122",
        "name that no server keeps as it is",
        meaning=(
            "A measurement, key or tag holds what gets lost or changed on some server: a backslash, a control "
            "character, `=` in a measurement, `#` before it, or it is empty or too long."
        ),
        fix="Give it another name. `invalid_names: replace` is for names that come of messages.",
        example="measurement: {const: 'a=b'}",
    ),
    Code(
        "IFX123",
        "constant or default of the wrong type",
        meaning="A constant or a default is not a value of its field's type, or is a tag that would be left out.",
        fix="Declare the type, or write a value of it.",
        example="{expr: a, default: x}",
    ),
    Code(
        "IFX124",
        "default and required together",
        meaning="A value with a default is never missing, so `required` has no meaning.",
        fix="Keep one of them.",
        example="{expr: a, default: 0, required: true}",
    ),
    Code(
        "IFX125",
        "time that cannot be",
        meaning=(
            "A strptime pattern, a time zone, a span or a time in the document cannot be, or does not say one instant."
        ),
        fix="Correct it as the message says; a pattern without %z needs `timezone`.",
        example="format: '%d.%m.%Y'",
    ),
    Code(
        "IFX126",
        "key without meaning here",
        meaning="The key is known, but beside these other keys it says nothing.",
        fix="Take it out.",
        example="timestamp: {expr: t, format: unix_s, timezone: UTC}",
    ),
    Code(
        "IFX127",
        "glob that cannot be",
        meaning="A [ of a glob is never closed.",
        fix="Close it, or write [[] for the character itself.",
        example="include: 'v_['",
    ),
    Code(
        "IFX128",
        "no fields",
        meaning="`fields` is there and empty; a point has at least one field.",
        fix="Add a field, or leave `fields` away: then every member that nothing else uses is one.",
        example="fields: {}",
    ),
    Code(
        "IFX129",
        "example that cannot be run",
        meaning=(
            "An example lacks its message or what comes of it, has two of them, names a code that there is "
            "not, or a line that is not line protocol."
        ),
        fix="Correct it as the message says.",
        example="examples: [{message: {}}]",
    ),
    Code(
        "IFX131",
        "statement that does not suit a window",
        meaning=(
            "The statement of a reader does not use $start and $stop, uses the clock, or does not name its language."
        ),
        fix="Bound it by $start (included) and $stop (excluded), and add `language`.",
        example="statement: SELECT * FROM env",
    ),
    Code(
        "IFX132",
        "expression that never fits",
        meaning="Whatever the message, the expression gives values of a type that its place does not take.",
        fix="Declare the field's type, or convert the value, as the hint says.",
        example="name: upper(name)",
    ),
    Code(
        "IFX150",
        "no timestamp (warning)",
        meaning=(
            "Without `timestamp` a point has its message's time, in microseconds: points of one microsecond "
            "with the same tags overwrite each other."
        ),
        fix="Take the time from the message, or add `timestamp: {spread: offset}`.",
        example="points: {measurement: {const: env}}",
    ),
    Code(
        "IFX151",
        "unused table (warning)",
        meaning="No expression looks anything up in this table.",
        fix="Use it, or take it out.",
        example="tables: {sites: {a: b}}",
    ),
    Code(
        "IFX152",
        "an expression that is the name of a type (warning)",
        meaning="`celsius: float` reads a member that is called `float`: what stands there is an expression.",
        fix="Declare the type beside the expression: {expr: celsius, type: float}.",
        example="fields: {celsius: float}",
    ),
    Code(
        "IFX153",
        "rows that are not walked (warning)",
        meaning=(
            "Payloads of csv and influx are lists of rows. Without `for_each` an expression sees the list, and a "
            "member of a list is always null."
        ),
        fix="Add `for_each: '@'`.",
        example="from: {stream: met, topic: stations, payload: csv}",
    ),
    Code(
        "IFX154",
        "a message that is a text of JSON (warning)",
        meaning="The `message` of an example is a tree; a string in it is a payload that is a JSON string.",
        fix="Write the tree without quotes, or the raw text as `message_json`.",
        example="""message: '{"celsius": 21.5}'""",
    ),
)

# --- IFX2xx expressions ---
_EXPRESSIONS: tuple[Code, ...] = (
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

# --- IFX3xx records ---
_RECORDS: tuple[Code, ...] = (
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
)

# --- IFX300 to 309 evaluation ---
_EVALUATION: tuple[Code, ...] = (
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
)

# --- IFX34x values and points ---
_VALUES: tuple[Code, ...] = (
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
            "the message."
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
)

# --- IFX4xx payloads ---
_PAYLOADS: tuple[Code, ...] = (
    Code(
        "IFX401",
        "payload too large",
        meaning="A payload has more than 64,000,000 bytes.",
        fix="Split it where it is produced.",
    ),
    Code(
        "IFX402",
        "not UTF-8",
        meaning="A payload, or a string in it, is not valid UTF-8.",
        fix=("Correct the producer's encoding. Bytes that are no text belong in a `raw`, `msgpack` or `cbor` payload."),
        example="a JSON payload in Latin-1",
    ),
    Code(
        "IFX403",
        "nested too deeply",
        meaning="Lists and objects of a payload are nested more than 128 deep.",
        fix="Correct the producer: no measurement needs this.",
        example="[[[[…]]]]",
    ),
    Code(
        "IFX404",
        "not of the format",
        meaning=(
            "The payload is not what `from.payload` says: it is cut off, empty, followed by something else, "
            "or of another format."
        ),
        fix="Look at the payload (dead letters hold it), then correct the producer or `payload`.",
        example='{"a": 1',
    ),
    Code(
        "IFX405",
        "duplicate key",
        meaning=(
            "A key that the mapping reads stands twice in one object, and nothing says which one is meant. "
            "With `strict: true` this holds for every key."
        ),
        fix="Correct the producer.",
        example='{"a": 1, "a": 2}',
    ),
    Code(
        "IFX406",
        "number out of range",
        meaning=(
            "A number that the mapping reads is beyond the largest float, has thousands of digits, or is NaN "
            "or an infinity (msgpack, cbor)."
        ),
        fix="Send null, or leave the value out.",
        example='{"a": 1e400}',
    ),
    Code(
        "IFX407",
        "key that is not a string",
        meaning="An object of a msgpack or cbor payload has a key that is not a string.",
        fix="Use strings as keys.",
        example='{1: "a"} in msgpack',
    ),
    Code(
        "IFX408",
        "type without a JSON form",
        meaning="A msgpack or cbor payload holds an extension type, a tag, `undefined`, or bytes as a key.",
        fix="Send such values as strings or numbers: times as integers, for one.",
        example="a msgpack timestamp",
    ),
    Code(
        "IFX410",
        "not a table",
        meaning=(
            "A row of a csv payload has more or fewer cells than there are columns, the first row with the "
            "names is missing, or a quote stands where none can be."
        ),
        fix="Correct the producer, or the options `header`, `delimiter` and `quote`.",
        example="the header a,b and the row 1,2,3",
    ),
    Code(
        "IFX411",
        "pattern not found",
        meaning="The `pattern` of a text payload is not found in it.",
        fix="Correct the pattern; make parts that may be missing optional.",
        example='pattern: "^(?P<level>[A-Z]+) " and "hello"',
    ),
    Code(
        "IFX420",
        "value that the format cannot hold",
        meaning=(
            "A reader's payload is of a kind that the format of `to.payload` does not have: a list in csv, "
            "NaN in json, a number in text."
        ),
        fix="Shape the value with the expression, or take another format.",
        example='payload: csv and {"a": [1]}',
    ),
)

# --- IFX5xx command line, samples, examples ---
_COMMANDS: tuple[Code, ...] = (
    Code(
        "IFX500",
        "not an envelope",
        meaning="With --envelope every line is a JSON object with the payload and the coordinates of one message.",
        fix="Correct the line (`iggyflux log tail --envelope` shows such lines), or leave --envelope out.",
        example='{"payload": {"celsius": 21.5}, "ofset": 7}',
    ),
    Code(
        "IFX501",
        "binary payloads need envelopes",
        meaning="Payloads of this format are binary, and cannot be lines of a file.",
        fix='Give --envelope, and samples such as {"payload_base64": "gaFhAQ=="}.',
        example="iggyflux dry-run msgpack.yaml samples.ndjson",
    ),
    Code(
        "IFX502",
        "not a row",
        meaning="A sample of a reader is a row: an object of columns a line, or a line of a CSV with a header.",
        fix="Correct the line. `time` is an integer of nanoseconds, or RFC 3339.",
        example='{"time": 1.5, "device": "d1"}',
    ),
    Code(
        "IFX510",
        "other lines than the example says",
        meaning="A line of `points` is missing, differs, or was not expected. Lines are compared byte for byte.",
        fix="Correct the mapping; or, where what comes out is what you want, the example.",
        example="points: ['env temperature=21 0'] where temperature=21.0 comes out",
    ),
    Code(
        "IFX511",
        "a record of an example fails",
        meaning="The example expects no failure, and a record of its message fails.",
        fix="Correct the mapping or the message; or say `fails: CODE` where the failure is what you want.",
    ),
    Code(
        "IFX512",
        "other failures than the example says",
        meaning="`fails` names the codes of the records that fail, in order; what came is another list of codes.",
        fix="Correct the mapping, or the list.",
        example="fails: IFX340 for a message that fails with IFX345",
    ),
    Code(
        "IFX513",
        "the message of an example is not skipped",
        meaning="The example says `skipped: true`, but `where` is true for its message.",
        fix="Correct `where`, or say which `points` come of the message.",
    ),
    Code(
        "IFX514",
        "the message of an example has no bytes",
        meaning="The payload format cannot write the tree that `message` holds, or `payload_base64` is not base64.",
        fix="Correct the message, or give its bytes in `payload_base64`.",
        example="payload: csv and message: {a: 1}",
    ),
    Code(
        "IFX520",
        "neither mapping nor pipeline",
        meaning="The document has no key by which mappings (`kind`, `from`, `points`) or pipelines (`run`) are known.",
        fix="Correct the keys, or leave the file out.",
        example="iggyflux validate docker-compose.yaml",
    ),
    Code(
        "IFX521",
        "file not readable",
        meaning="The file may not be read, or is gone.",
        fix="Correct its permissions.",
    ),
    Code(
        "IFX530",
        "no message can be made up",
        meaning="`log generate` found no message that the mapping takes without a failure.",
        fix="Add an example with `points` to the document: messages are then made like its own.",
        example="payload: {format: text, pattern: …} without examples",
    ),
)

# --- IFX6xx delivery and run ---
_DELIVERY: tuple[Code, ...] = (
    Code(
        "IFX600",
        "delivery stopped",
        meaning="A sink cannot go on, for a reason that has no code of its own.",
        fix="Read the reason and the hint beside it.",
    ),
    Code(
        "IFX601",
        "line refused by the server",
        meaning="The server will never take this line; the others of its request are stored.",
        fix="Read the server's words in the dead letter, correct the mapping or the data, and replay.",
        example="InfluxDB 2.x: points beyond retention policy",
    ),
    Code(
        "IFX602",
        "line too large",
        meaning="The server refused a request as too large that held only this line.",
        fix="Send less in a point, or raise the limit of the server or of the proxy before it.",
        example="413 Request Entity Too Large, for a line of 12 MB",
    ),
    Code(
        "IFX603",
        "line that ends the connection",
        meaning=(
            "The connection died each time this line was sent alone, to a server that was there before and after: "
            "it is kept as a dead letter, since one such line can bring a server down again and again."
        ),
        fix="Look into the server's log. Replay the dead letter only to a server that was mended.",
    ),
    Code(
        "IFX604",
        "lines not told apart",
        meaning=(
            "So many requests with lines of one batch were refused that the search for the bad ones was ended: "
            "most of the batch is refused, usually because a field has another type than before."
        ),
        fix="Correct the mapping; a replay then delivers what was good.",
        example="`type: string` for a field that the server has as float",
    ),
    Code(
        "IFX605",
        "server not available, kept as dead letter",
        meaning="The server was not available for `max_retries` retries, and `on_unavailable` is `dead_letter`.",
        fix="Replay when the server is back, or set `on_unavailable: wait`.",
    ),
    Code(
        "IFX606",
        "server not available, stopped",
        meaning="The server was not available for `max_retries` retries, and `on_unavailable` is `stop`.",
        fix="Start again when the server is back: nothing was acknowledged, nothing is lost.",
    ),
    Code(
        "IFX607",
        "line that the server fails on",
        meaning="The server answers an error of its own each time this line is sent alone, and takes other lines.",
        fix="Read the server's words in the dead letter and its log.",
        example="InfluxDB 2.x: 500 engine: unable to parse bool value",
    ),
    Code(
        "IFX608",
        "connection dies whatever is sent",
        meaning="The connection died many times in a row while lines were sent, and there was no answer between.",
        fix="Look at the server's log, and at proxies and firewalls on the way.",
    ),
    Code(
        "IFX609",
        "field type conflict",
        meaning="The line has a field in another type than the server has stored.",
        fix="Declare the stored type in the mapping, or write to another field or measurement; then replay.",
        example='field "f" is sent as string, but stored as float',
    ),
    Code(
        "IFX620",
        "record failed, and on_error is fail",
        meaning=(
            "A record could not be mapped, or its line was refused, and the mapping says `on_error: fail`. Nothing of "
            "its batch is acknowledged."
        ),
        fix=(
            "Correct the mapping or the data and run again: the message is read again. Or choose `on_error: "
            "dead_letter`."
        ),
    ),
    Code(
        "IFX690",
        "route stopped",
        meaning="A route stopped for a reason that has no code of its own.",
        fix="Read the reason; the messages that were not acknowledged come again.",
    ),
    Code(
        "IFX699",
        "a fault of the program",
        meaning=(
            "Something happened that should not; the route stopped, the others went on, nothing was acknowledged too "
            "early."
        ),
        fix="Report it, with the log of the run.",
    ),
)

# --- IFX7xx transports ---
_TRANSPORTS: tuple[Code, ...] = (
    Code(
        "IFX701",
        "positions not usable",
        meaning=(
            "The file of a consumer's positions cannot be written, or is damaged, or was written by another version."
        ),
        fix=(
            "Free space or correct the permissions; put back a copy of the file, or remove it to begin where `start` "
            "says."
        ),
    ),
    Code(
        "IFX702",
        "consumer in use",
        meaning="Another process reads under this consumer's name; two would acknowledge each other's messages.",
        fix="Stop the other process, or give this run another consumer name.",
        example="two `iggyflux run` of one pipeline on `log:data`",
    ),
    Code(
        "IFX703",
        "no such log",
        meaning="`log:DIR` names a folder that does not exist or cannot be made.",
        fix="Fill it first with `iggyflux log append` or `iggyflux log generate`, or correct the path.",
        example="from: log:no-such-folder",
    ),
    Code(
        "IFX704",
        "log takes no more",
        meaning=(
            "A message could not be appended: the disk is full, or the folder may not be written. What was appended "
            "before is whole."
        ),
        fix="Free space or correct the permissions.",
    ),
    Code(
        "IFX705",
        "log damaged",
        meaning=(
            "A record inside a log is not what its checksum says, and sound records follow: this is no torn end of a "
            "crash, which is repaired by itself."
        ),
        fix=(
            "Put back a copy of the segment file, or begin behind the damage with a new consumer and `start: {offset: "
            "N}`."
        ),
    ),
    Code(
        "IFX706",
        "position beyond the end",
        meaning="A consumer's position, or `start`, lies beyond the last message: the log was cut or replaced.",
        fix="Give the consumer a new name, or correct `start`.",
        example="start: {offset: 1000} on a log of 10 messages",
    ),
    Code(
        "IFX707",
        "no topic matches",
        meaning=(
            "No topic of the log is the mapping's `from.stream` and `from.topic`, and the run is to end with what is "
            "there."
        ),
        fix="Correct the names in the mapping; `iggyflux log info` shows what there is.",
        example="from: {stream: factory, topic: reading}",
    ),
    Code(
        "IFX710",
        "file not usable",
        meaning="An input file cannot be read, or an output file cannot be written.",
        fix="Check the path and its permissions.",
        example="to: file:/",
    ),
    Code(
        "IFX711",
        "line is no message",
        meaning=(
            "A line of an input file with `envelope: true` is not a message: JSON with one of payload, payload_text "
            "and payload_base64."
        ),
        fix="Correct the line, or leave `envelope` out where lines are bare payloads.",
        example='{"ofset": 2}',
    ),
    Code(
        "IFX712",
        "file was replaced",
        meaning=(
            "An input file is shorter than what was read of it, or begins otherwise: its position means nothing any "
            "more."
        ),
        fix="Remove the file of its position (named in the hint) to read it from its beginning.",
    ),
    Code(
        "IFX713",
        "a file has no offsets",
        meaning="`start` of a file is an offset or a time.",
        fix="Take `first` or `last`.",
        example="start: {offset: 3}",
    ),
    Code(
        "IFX715",
        "dead letters cannot be kept",
        meaning="The place of dead letters is full or cannot be written. The run stops, since nothing is dropped.",
        fix="Free space or correct the permissions, and run again.",
    ),
    Code(
        "IFX716",
        "dead letter damaged",
        meaning="A line of a dead-letter file is no dead letter.",
        fix="Remove or correct the line; file and line number are named.",
    ),
    Code(
        "IFX717",
        "no dead letters",
        meaning="There is nothing at the place where dead letters were to be read.",
        fix="Check the path: by default it is `dead-letters/NAME` beside the pipeline file.",
    ),
    Code(
        "IFX720",
        "not InfluxDB's write address",
        meaning="Something answered a write as InfluxDB never does: a web page, a 200, an unknown route.",
        fix="Correct `url` (with the path, behind a proxy) and `flavor`. Only the status 204 acknowledges a write.",
        example="url: http://influx.example.org/signin",
    ),
    Code(
        "IFX721",
        "credentials refused",
        meaning="InfluxDB does not know the token, or the user and password.",
        fix="Correct `token` (2.x, 3.x) or `username` and `password` (1.x).",
    ),
    Code(
        "IFX722",
        "no permission to write",
        meaning="InfluxDB knows the credentials, but they may not write to this database or bucket.",
        fix="Give them write permission; in 2.x also look whether the token is active.",
    ),
    Code(
        "IFX723",
        "database, bucket or organization missing",
        meaning="InfluxDB does not have what `database`, `bucket` or `org` names, or hides it from this token.",
        fix="Create it, set `create: true`, or correct the name.",
    ),
    Code(
        "IFX724",
        "retention policy missing",
        meaning="The database of an InfluxDB 1.x has no retention policy of that name.",
        fix="Create it, or correct `retention_policy`.",
    ),
    Code(
        "IFX725",
        "redirect",
        meaning="The address answers with a redirect. None is followed: the token would go along.",
        fix="Set `url` to the address of InfluxDB itself.",
        example="url: http://influx.example.org, which redirects to https",
    ),
    Code(
        "IFX726",
        "proxy in the way",
        meaning="The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names wants credentials or cannot be used.",
        fix="Put user and password into the variable, or name the host in NO_PROXY.",
    ),
    Code(
        "IFX727",
        "TLS refused",
        meaning="No trust between us and the server: its certificate, ours, or no TLS at all on that port.",
        fix="Set `ca_file`, or `client_cert` and `client_key`; use http:// where the server speaks no TLS.",
    ),
    Code(
        "IFX728",
        "setting that the server cannot follow",
        meaning="A setting of the connection is missing, or means nothing to this flavour of InfluxDB.",
        fix="Follow the hint, or pin another `flavor`.",
        example="flavor: v1 with org: acme",
    ),
    Code(
        "IFX729",
        "server not recognized",
        meaning="The answer to /ping does not tell what the server is, or tells something else than `flavor`.",
        fix="Check `url`, or set `flavor` to what the server speaks.",
    ),
    Code(
        "IFX730",
        "server not reached",
        meaning="No answer: the name does not resolve, nothing listens, or the server is overloaded.",
        fix="Start the server, correct `url`, or look at the network.",
    ),
    Code(
        "IFX731",
        "answer that fits no write",
        meaning="The server, or something before it, refuses the request whatever its lines are.",
        fix="Read the answer: is a proxy, a firewall or another product at that address?",
    ),
    Code(
        "IFX732",
        "URL not usable",
        meaning="`url` is not an http or https address with a host.",
        fix="Write it as scheme, host, port and, behind a proxy, path.",
        example="url: influx.example.org",
    ),
    Code(
        "IFX733",
        "certificate files not usable",
        meaning="`ca_file`, `client_cert` or `client_key` cannot be read, or do not fit together.",
        fix="Give PEM files; the key without a passphrase.",
    ),
    Code(
        "IFX735",
        "limit of the server reached",
        meaning="InfluxDB 3 has as many databases as it may have.",
        fix="Raise the limit, or write to a database that exists.",
    ),
    Code(
        "IFX750",
        "fault not understood",
        meaning="A fault or a scenario for the simulator has an unknown kind or key, or a value that makes no sense.",
        fix="Correct it as the message says; docs/simulator.md lists the kinds of faults and their keys.",
        example="iggyflux sim --fault statu:status=503",
    ),
    Code(
        "IFX760",
        "the iggy section cannot be used",
        meaning="The `iggy` section or the consumer asks for what Iggy or its SDK does not have.",
        fix="Do as the hint says.",
        example="iggy: {transport: http}\nconsumer: {group: writers}",
    ),
    Code(
        "IFX761",
        "no encrypted connection to Iggy",
        meaning="Certificates do not fit: the server's is not trusted, or does not carry the name.",
        fix="Correct `tls`, `ca_file` and `domain`.",
    ),
    Code(
        "IFX763",
        "Iggy does not let us in",
        meaning="Name, password or token are wrong, or the user lacks the right for this stream and topic.",
        fix="Correct the `iggy` section, or give the user the rights to read, poll and send.",
    ),
    Code(
        "IFX764",
        "another version of Iggy",
        meaning="Client and server do not understand each other. This client speaks with servers 0.9.x only.",
        fix="Run a server 0.9.x.",
    ),
    Code(
        "IFX766",
        "no such stream or topic in Iggy",
        meaning="A stream or topic that is named is not there.",
        fix="Correct the name, create it by hand, or for dead letters and a reader's messages set `create: true`.",
    ),
    Code(
        "IFX767",
        "cannot create the topic",
        meaning="The server refused to create a stream or topic; the message holds its words.",
        fix="Create it by hand: `iggy topic create STREAM TOPIC PARTITIONS none`.",
    ),
    Code(
        "IFX768",
        "the group was joined meanwhile",
        meaning="While `regroup` made a consumer group anew, another process joined it.",
        fix="Stop every process of the group, and run it again; the hint holds the offsets that were stored.",
    ),
    Code(
        "IFX775",
        "a message that Iggy does not take",
        meaning="A payload is empty or larger than 64 MB, or a header's key or value has no or more than 255 bytes.",
        fix="Correct the mapping that makes the message.",
    ),
    Code(
        "IFX776",
        "a message with a time of its own",
        meaning="A mapping sets the timestamp of a message, and the Iggy SDK cannot send one.",
        fix="Put the time into a header or into the payload.",
        example="messages:\n- timestamp: time",
    ),
)

# --- IFX8xx pipeline files ---
_PIPELINES: tuple[Code, ...] = (
    Code(
        "IFX801",
        "pipeline file not readable",
        meaning="The pipeline file does not exist, is a folder, or may not be read.",
        fix="Check the path and its permissions.",
        example="iggyflux run no-such-file.yaml",
    ),
    Code(
        "IFX802",
        "variable not set",
        meaning="A `${VAR}` of the pipeline file names an environment variable that is not set or is empty.",
        fix="Set the variable, or give it a default: `${VAR:-default}`. A literal `${VAR}` is written `$${VAR}`.",
        example="token: ${NOT_SET}",
    ),
    Code(
        "IFX803",
        "secret file not readable",
        meaning="The file that `file:PATH` names as the place of a secret cannot be read, or is empty.",
        fix="Check the path (relative to the pipeline file) and its permissions.",
        example="token: file:/run/secrets/none",
    ),
    Code(
        "IFX804",
        "not a duration",
        meaning="A duration is a number and a unit without a space.",
        fix='Write "250ms", "10s", "5m", "1h" or "1d".',
        example="linger: 10",
    ),
    Code(
        "IFX805",
        "not a size",
        meaning="A size is a number of bytes, or a number with a unit.",
        fix='Write 5000000, "5MB" or "512KiB".',
        example="batch_bytes: 5 mega",
    ),
    Code(
        "IFX806",
        "unknown end of a route",
        meaning="`from` or `to` names a place that this version does not know, or lacks its path.",
        fix=(
            "Take one of `iggy`, `log:DIR`, `file:PATH`, `stdin` to read messages, `influxdb`, `file:PATH`, `stdout` "
            "to write lines."
        ),
        example="from: logs:data",
    ),
    Code(
        "IFX807",
        "section missing",
        meaning="A route reads from or writes to a server whose connection the file does not describe.",
        fix="Add the section `iggy` or `influxdb` at the top of the file.",
        example="to: influxdb",
    ),
    Code(
        "IFX808",
        "no such mapping file",
        meaning="The mapping of a route does not exist. Paths are relative to the pipeline file.",
        fix="Correct the path.",
        example="run: [{mapping: mappings/nothing.yaml}]",
    ),
    Code(
        "IFX809",
        "not a usable address",
        meaning="`url` is not an http or https address, or holds a user name or password, which would end up in logs.",
        fix="Write scheme, host and port only; put credentials in `username`, `password` or `token`.",
        example="url: http://me:secret@127.0.0.1:8086",
    ),
    Code(
        "IFX810",
        "keys that do not go together",
        meaning="Two keys contradict each other, or one is useless without another.",
        fix="Keep `token`, or `username` with `password`; give `client_key` only with `client_cert`.",
        example="influxdb: {token: …, password: …}",
    ),
    Code(
        "IFX811",
        "two routes of one name",
        meaning=(
            "Two routes have one name, or read one place as one consumer: they would acknowledge each other's messages."
        ),
        fix="Give one of them a `name`, or another `consumer`.",
        example="run: [{mapping: a.yaml}, {mapping: a.yaml}]",
    ),
    Code(
        "IFX812",
        "not a point to start at",
        meaning="`start: {timestamp: …}` is not an RFC 3339 timestamp.",
        fix="Write it as 2026-01-31T12:00:00Z.",
        example="start: {timestamp: yesterday}",
    ),
    Code(
        "IFX813",
        "ends that do not suit the mapping",
        meaning=(
            "A writer mapping goes from messages to lines, a reader mapping from rows to messages; the route's ends do"
            " not."
        ),
        fix="Correct `from` and `to`, or name the other mapping.",
        example="{mapping: a-writer.yaml, from: influxdb, to: stdout}",
    ),
    Code(
        "IFX814",
        "secret in the file",
        meaning="A token or password is written into the pipeline file in plain (a warning).",
        fix="Write `${VARIABLE}` or `file:PATH` instead.",
        example="token: my-token",
    ),
    Code(
        "IFX815",
        "no such route",
        meaning="`--mapping` names a route that the pipeline does not have.",
        fix="Take one of the names that the hint lists.",
        example="iggyflux run pipeline.yaml --mapping nothing",
    ),
)

CODES: dict[str, Code] = {
    entry.code: entry
    for entry in (
        *_DOCUMENTS,
        *_EXPRESSIONS,
        *_EVALUATION,
        *_RECORDS,
        *_VALUES,
        *_PAYLOADS,
        *_COMMANDS,
        *_DELIVERY,
        *_TRANSPORTS,
        *_PIPELINES,
    )
}
