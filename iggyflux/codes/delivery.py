"""Delivery and the run (IFX6xx)."""

from __future__ import annotations

from iggyflux.codes.code import Code

CODES: tuple[Code, ...] = (
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
        fix=(
            "Look into the server's log. Replay the dead letter only to a server that was mended. InfluxDB 3.6 breaks "
            "off where it should refuse a line that has no ASCII character at its 20th byte: there the line itself is "
            "wrong, by the type of a field for instance."
        ),
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
        meaning=(
            "The server answers an error of its own, or nothing in time, each time this line is sent alone, "
            "and takes other lines."
        ),
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
        "IFX610",
        "server refuses every line",
        meaning=(
            "The server refused every line since the start, or every line of three requests in a row, and its words "
            "name no line. Then the lines are hardly to blame, but an address, a database or a setting. Nothing of "
            "them was acknowledged, and none became a dead letter."
        ),
        fix=(
            "Read the server's words. Correct `url`, `flavor`, the database, `org` or `precision`, or the mapping "
            "where it makes only wrong lines; then run again."
        ),
        example="400: this endpoint takes JSON",
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
        "IFX640",
        "cursor of another query",
        meaning=(
            "What is stored under the name of this reader is how far another query was read: the measurement, the "
            "statement or `where` have changed, or the server's database. Going on from there would skip what the new "
            "query finds before."
        ),
        fix=(
            "`iggyflux cursor reset` begins where `start` says; `iggyflux cursor set --at TIME` goes on from a time "
            "with the new query; another `name` of the route keeps both."
        ),
    ),
    Code(
        "IFX641",
        "digests damaged",
        meaning=(
            "What the state remembers of the rows that were sent of the last `overlap` is missing, or is not what was "
            "stored."
        ),
        fix=(
            "Put back a copy, or `iggyflux cursor set` to the time that `cursor show` tells: what lies in the overlap "
            "is then sent again, with the same ids."
        ),
    ),
    Code(
        "IFX642",
        "a window too large",
        meaning=(
            "A window holds more than can be taken at once and cannot be made smaller: it is one nanosecond wide, or "
            "its messages are made of all of its rows."
        ),
        fix=(
            "Read less at once: fewer `fields`, a `where` by tag. With `for_each: series` or `window` make "
            "`cursor.window` smaller."
        ),
    ),
    Code(
        "IFX643",
        "a cursor too large for a topic",
        meaning=(
            "With `state: {stream, topic}` the position of a reader and what it remembers of the overlap are one "
            "message, which has 8 MB at the most (1.4 MB over http). Sixteen bytes are remembered of each row, with "
            "`mark` thirty-two. The name of such a reader has at most 255 bytes."
        ),
        fix="Name a directory as `state`, make `cursor.overlap` smaller, or leave `mark` out.",
        example="cursor: {overlap: 1d}",
    ),
    Code(
        "IFX644",
        "rows that were not asked for",
        meaning=(
            "The answer to a statement has rows without the cursor's column, or with times outside the window that was "
            "asked for. Reading on would send rows twice, or never."
        ),
        fix=(
            "Let the statement select the time as it is and bound it on both sides: WHERE time >= $start AND time < "
            "$stop, without shifting or truncating it. `cursor.column` names the column."
        ),
        example="SELECT date_bin('1h', time) AS time, avg(x) FROM env WHERE time >= $start AND time < $stop GROUP BY 1",
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
