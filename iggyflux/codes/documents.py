"""Documents: text, tree, schema, and what a mapping document says (IFX1xx)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
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
    Code(
        "IFX155",
        "wildcards of MQTT (warning)",
        meaning="A topic is a name or a glob with `*`, `?` and `[…]`; `+` and `#` are characters like others.",
        fix="Write `*` for any characters.",
        example="topic: printers/+/status",
    ),
)
