"""The result of a query when a server, a network or a disk fails.

One table of answers and the meaning of each; every answer is one that a real server gave, or could give.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
import pytest

from iggyflux.delivery.answers import Answer
from iggyflux.delivery.verdicts import Impossible, Unavailable
from iggyflux.errors import NotConnected, PipelineError, Stopped, TooMuch, TooSlow
from iggyflux.mapping import Query
from iggyflux.pipeline import InfluxSettings
from iggyflux.records import Row
from iggyflux.secrets import Scrubber, Secret
from iggyflux.sim import SimServer
from iggyflux.sim.faults import Fault
from iggyflux.transports.influxdb.http import HttpClient, Ticket
from iggyflux.transports.influxdb.query.answers import judge, judge_words
from iggyflux.transports.influxdb.query.source import InfluxRows
from iggyflux.transports.urls import parse_address
from tests.sim.client import write
from tests.transports.raw_server import NO_CONTENT, PING_1, PING_2, PING_3, RawServer, Reply, Request, http

T = TypeVar("T")
START = 1_700_000_000_000_000_000
SECRET = "very-s3cret"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(coroutine, 120)

    return asyncio.run(bounded())


def query(language: str = "auto", **more: Any) -> Query:
    given: dict[str, Any] = {"measurement": "m", "statement": None, "where": (), "fields": (), "tags": (), **more}
    return Query(language=language, **given)  # type: ignore[arg-type]  # any word, to see the error


async def rows_of(source: InfluxRows, start: int = START, stop: int = START + 10**9) -> list[Row]:
    window = await source.fetch(start, stop)
    try:
        return [row async for chunk in window.chunks() for row in chunk]
    finally:
        window.close()


# --- a server from a script ---

JSON, LINES, CSV = "Content-Type: application/json", "Content-Type: application/jsonl", "Content-Type: text/csv"
PINGS = {"influxql": PING_1, "flux": PING_2, "sql": PING_3}
SERIES = f'{{"name":"m","tags":{{"t":"a"}},"columns":["time","c0"],"values":[[{START},1]]}}'
ROW = f'{{"results":[{{"statement_id":0,"series":[{SERIES}]}}]}}\n'
PARTIAL = f'{{"results":[{{"statement_id":0,"series":[{SERIES}],"partial":true}}]}}\n'
NO_ROWS = '{"results":[{"statement_id":0}]}\n'
FIELDS = '{"results":[{"series":[{"name":"m","columns":["fieldKey","fieldType"],"values":[["f","float"]]}]}]}\n'
TAGS = '{"results":[{"series":[{"name":"m","columns":["tagKey"],"values":[["t"]]}]}]}\n'
COLUMNS = "".join(
    json.dumps({"column_name": name, "data_type": kind}) + "\n"
    for name, kind in (("time", "Timestamp(Nanosecond, None)"), ("t", "Dictionary(Int32, Utf8)"), ("f", "Float64"))
)
HEAD = (
    "#datatype,string,long,dateTime:RFC3339,string,string,double\r\n#group,false,false,false,true,true,false\r\n"
    "#default,_result,,,,,\r\n,result,table,_time,_measurement,t,f\r\n"
)
CSV_ROW = ",,0,2023-11-14T22:13:20Z,m,a,1\r\n"
ERROR_TABLE = "\r\n#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,{},\r\n"
LINE = f'{{"time":{START},"t":"a","f":1.0}}\n'


def chunked(*pieces: str, end: bool = True, kind: str = JSON) -> Reply:
    body = "".join(f"{len(piece.encode()):x}\r\n{piece}\r\n" for piece in pieces if piece) + (
        "0\r\n\r\n" if end else ""
    )
    head = f"HTTP/1.1 200 OK\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return Reply((head + body).encode(), close=not end)


def unframed(body: str, kind: str = JSON) -> Reply:
    return Reply(f"HTTP/1.1 200 OK\r\n{kind}\r\n\r\n{body}".encode(), close=True)


def short(body: str, kind: str = JSON) -> Reply:
    return Reply(f"HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {len(body) + 10}\r\n\r\n{body}".encode(), close=True)


def answering(reply: Reply) -> Callable[[Request], Reply]:
    """Answer the schema queries correctly, and give `reply` to queries for rows."""

    def answer(request: Request) -> Reply:
        asked = request.text
        if request.target.startswith("/query"):
            asked = parse_qs(asked)["q"][0]
        for sign, kind, body in (
            ("SHOW FIELD KEYS", JSON, FIELDS),
            ("SHOW TAG KEYS", JSON, TAGS),
            ("SHOW SERIES", JSON, NO_ROWS),
            ("information_schema", LINES, COLUMNS),
        ):
            if sign in asked:
                return http(200, body, kind)
        return reply

    return answer


def given(language: str, reply: Reply, seconds: float = 5.0, **more: Any) -> list[Row]:
    """Return the rows, when a server that speaks `language` answers so."""

    async def main(url: str) -> list[Row]:
        settings = InfluxSettings(url=url, database="d", org=None, token=Secret(SECRET), timeout_seconds=seconds)
        source = InfluxRows(settings, query(language), **more)
        try:
            await source.connect()
            return await rows_of(source)
        finally:
            await source.close()
            if reply.wait is not None:
                reply.wait.set()

    with RawServer([answering(reply)] * 100, PINGS[language], None) as server:
        return drive(main(server.url))


ONE = {"influxql": ROW, "sql": LINE, "flux": f"{HEAD}{CSV_ROW}\r\n"}
KINDS = {"influxql": JSON, "sql": LINES, "flux": CSV}


@pytest.mark.parametrize("language", ONE)
@pytest.mark.parametrize(
    "framed", [lambda body, kind: http(200, body, kind), lambda body, kind: chunked(body, kind=kind)]
)
def test_a_whole_answer_gives_its_rows(language: str, framed: Callable[[str, str], Reply]) -> None:
    found = given(language, framed(ONE[language], KINDS[language]))

    assert [(dict(row.columns), row.measurement, row.tags) for row in found] == [
        ({"time": START, "t": "a", "f": 1.0}, "m", ("t",))
    ]


@pytest.mark.parametrize("language", ONE)
def test_an_answer_that_breaks_off_anywhere_gives_no_row(language: str) -> None:
    """At each byte, for each way to give the length of an answer; except at an optional last line end."""
    body = ONE[language]
    ends = [0, 1, len(body) // 3, len(body) // 2, len(body) - 3, len(body) - 2, len(body)]
    for end in ends:
        for reply in (
            chunked(body[:end], end=False, kind=KINDS[language]),
            short(body[:end], KINDS[language]),
            unframed(body[:end], KINDS[language]),
        ):
            with pytest.raises(NotConnected, match=r"broke|truncated|incomplete"):
                given(language, reply)


@pytest.mark.parametrize("language", ["influxql", "flux"])
def test_an_answer_that_a_proxy_cut_and_framed_anew_gives_no_row(language: str) -> None:
    """Both formats have an end mark of their own; the lines of SQL have none."""
    body = ONE[language]
    for end in range(1, len(body) - 2):
        if language == "flux" and body[:end] == "\r\n":
            continue
        with pytest.raises(NotConnected, match="truncated"):
            given(language, http(200, body[:end], KINDS[language]))


def said(status: int, message: str, kind: str = JSON, *headers: str) -> Reply:
    body = json.dumps({"error": message}) if kind == JSON else message
    return http(status, body, kind, *headers)


def inside(message: str) -> Reply:
    return http(200, json.dumps({"results": [{"statement_id": 0, "error": message}]}) + "\n", JSON)


TEXT = "Content-Type: text/plain"
PAGE = http(200, "<!doctype html><title>x</title>", "Content-Type: text/html")
MEANINGS: dict[str, tuple[str, Reply, type[Exception], str]] = {
    "last part says more": ("influxql", chunked(PARTIAL), NotConnected, "more follows"),
    "a failure after rows": (
        "influxql",
        chunked(PARTIAL, '{"results":[{"statement_id":0,"error":"timeout"}]}\n', PARTIAL, ROW),
        Stopped,
        "IFX742",
    ),
    "no database": ("influxql", inside("database not found: d"), Stopped, "IFX723"),
    "no policy": ("influxql", inside("retention policy not found: x"), Stopped, "IFX723"),
    "parse error in 200": ("influxql", inside("error parsing query: found EOF"), Stopped, "IFX742"),
    "parse error 1": ("influxql", said(400, "error parsing query: found EOF"), Stopped, "IFX742"),
    "point limit": (
        "influxql",
        inside("max-select-point limit exceeed: (1234/1000)"),
        TooMuch,
        "max-select-point",
    ),
    "query timeout": ("influxql", inside("query-timeout limit exceeded"), TooMuch, "query-timeout"),
    "killed": ("influxql", inside("query interrupted"), NotConnected, "interrupted"),
    "engine closed": ("influxql", inside("engine is closed"), NotConnected, "closed"),
    "queue": ("influxql", said(400, "queue length exceeded"), NotConnected, "queue"),
    "too many queries": (
        "influxql",
        inside("max-concurrent-queries limit exceeded(1, 1)"),
        NotConnected,
        "max-concurrent",
    ),
    "401": ("influxql", said(401, "authorization failed"), Stopped, "IFX721"),
    "403": ("influxql", said(403, "not authorized"), Stopped, "IFX741"),
    "404 route": ("influxql", said(404, "404 page not found", TEXT), Stopped, "IFX743"),
    "302": ("influxql", http(302, "", "Location: http://elsewhere/"), Stopped, "IFX725"),
    "page": ("influxql", PAGE, Stopped, "IFX740"),
    "no rows at all": ("influxql", NO_CONTENT, Stopped, "IFX740"),
    "500": ("influxql", said(500, "something odd"), NotConnected, "something odd"),
    "502 page": ("influxql", http(502, "<html>Bad Gateway</html>", "Content-Type: text/html"), NotConnected, "502"),
    "504": ("influxql", said(504, "gateway timeout"), NotConnected, "504"),
    "file limit": (
        "sql",
        said(500, "query error: External error: Query would scan 500 Parquet files, exceeding the file limit.", TEXT),
        TooMuch,
        "file limit",
    ),
    "plan error": (
        "sql",
        said(500, "query error: error while planning query: SQL error: ParserError(x)", TEXT),
        Stopped,
        "IFX742",
    ),
    "no database 3": ("sql", said(404, "query error: database not found: d"), Stopped, "IFX723"),
    "half a line": ("sql", http(200, LINE + '{"time":17', LINES), NotConnected, "truncated"),
    "error after lines": ("sql", http(200, LINE + "query error: out of memory", LINES), NotConnected, "truncated"),
    "page 3": ("sql", PAGE, Stopped, "IFX740"),
    "error table, memory": (
        "flux",
        http(200, HEAD + CSV_ROW + ERROR_TABLE.format("memory allocation limit reached: limit 1 bytes"), CSV),
        TooMuch,
        "memory allocation",
    ),
    "error table, quoted": (
        "flux",
        http(200, HEAD + CSV_ROW + ERROR_TABLE.format('"schema collision: cannot group ""x"", y"'), CSV),
        Stopped,
        "IFX742",
    ),
    "error table first": ("flux", http(200, ERROR_TABLE.format("engine is closed")[2:], CSV), NotConnected, "closed"),
    "glued panic": (
        "flux",
        http(200, HEAD + CSV_ROW + '{"code":"internal error","message":"a panic has occurred: x"}', CSV),
        Stopped,
        "IFX745",
    ),
    "no bucket": (
        "flux",
        http(404, '{"code":"not found","message":"could not find bucket \\"d\\""}', JSON),
        Stopped,
        "IFX723",
    ),
    "compilation": (
        "flux",
        http(400, '{"code":"invalid","message":"compilation failed: error @1:23"}', JSON),
        Stopped,
        "IFX742",
    ),
    "ui of 2.x": ("flux", PAGE, Stopped, "IFX740"),
}


@pytest.mark.parametrize(("language", "reply", "kind", "word"), MEANINGS.values(), ids=MEANINGS)
def test_what_an_answer_without_rows_means(language: str, reply: Reply, kind: type[Exception], word: str) -> None:
    with pytest.raises(kind) as failed:
        given(language, reply)

    assert word in (failed.value.code if isinstance(failed.value, Stopped) else str(failed.value))
    if isinstance(failed.value, Stopped):
        assert failed.value.hint


EMPTY: dict[str, tuple[str, Reply]] = {
    "no series": ("influxql", http(200, NO_ROWS, JSON)),
    "no table yet": (
        "sql",
        said(500, "query error: error while planning query: table 'public.iox.m' not found", TEXT),
    ),
    "no lines": ("sql", http(200, "", LINES)),
    "the end mark alone": ("flux", http(200, "\r\n", CSV)),
}


@pytest.mark.parametrize(("language", "reply"), EMPTY.values(), ids=EMPTY)
def test_an_empty_answer_is_not_an_error(language: str, reply: Reply) -> None:
    assert given(language, reply) == []


def test_a_tag_or_a_text_that_says_error_is_not_an_error() -> None:
    row = ROW.replace('"t":"a"', '"t":"a","error":"b"').replace("[[", "[[5,1],[").replace("]]", "]]")

    assert [row.columns["time"] for row in given("influxql", http(200, row, JSON))] == [5, START]


FILE_LIMIT = "query error: External error: Query would scan 500 Parquet files, exceeding the file limit."


@pytest.mark.parametrize(("files", "first"), [('{"first":1234567890123456789}\n', 1234567890123456789), ("{}\n", None)])
def test_if_the_first_row_is_not_searched_the_files_are_asked(files: str, first: int | None) -> None:
    def answer(request: Request) -> Reply:
        if "system.parquet_files" in request.text:
            return http(200, files, LINES)
        return answering(said(500, FILE_LIMIT, TEXT))(request)

    async def main(url: str) -> int | None:
        source = InfluxRows(InfluxSettings(url=url, database="d"), query())
        await source.connect()
        try:
            return await source.first()
        finally:
            await source.close()

    with RawServer([answer] * 20, PING_3, None) as server:
        if first is not None:
            assert drive(main(server.url)) == first
            return
        with pytest.raises(Stopped) as stopped:
            drive(main(server.url))
    assert stopped.value.code == "IFX749"


@pytest.mark.parametrize(("late", "ends"), [(4, 7), (5, "IFX749")])
def test_a_late_answer_to_the_question_for_the_first_row_is_asked_for_again(
    late: int, ends: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have been slow; it is not asked without end."""
    answers = iter([TooSlow("no complete answer")] * late)

    def first_of_measurement() -> int:
        if (error := next(answers, None)) is not None:
            raise error
        return 7

    async def main() -> int | str | None:
        source = InfluxRows(InfluxSettings(url="http://127.0.0.1:1", database="d"), query())
        monkeypatch.setattr(source, "_first_of_measurement", first_of_measurement)
        try:
            while True:
                try:
                    return await source.first()
                except NotConnected:
                    pass
                except Stopped as stopped:
                    return stopped.code
        finally:
            await source.close()

    assert asyncio.run(main()) == ends


def test_how_long_to_wait_is_passed_on() -> None:
    with pytest.raises(NotConnected) as failed:
        given("influxql", said(429, "slow down", JSON, "Retry-After: 7"))

    assert failed.value.retry_after_seconds == 7.0


def test_no_answer_in_time_is_too_much_where_the_server_is_there() -> None:
    with pytest.raises(TooMuch, match="although the server is reachable"):
        given("influxql", Reply(b"", wait=threading.Event()), seconds=1.5)


def test_an_answer_that_stops_coming_is_asked_for_again() -> None:
    with pytest.raises(NotConnected, match="incomplete answer"):
        given("influxql", Reply(chunked(PARTIAL, end=False).data), seconds=1.5)


def test_an_answer_that_is_too_large_is_too_much() -> None:
    with pytest.raises(TooMuch, match="larger than 1000 bytes"):
        given("sql", chunked(LINE * 10, LINE * 100, kind=LINES), most_bytes=1000)


def test_a_full_disk_stops(tmp_path: Path) -> None:
    lines = [LINE * 1000] * 120
    with pytest.raises(Stopped) as stopped:
        given("sql", chunked(*lines, kind=LINES), folder=tmp_path / "nowhere")

    assert stopped.value.code == "IFX746"


def test_a_large_answer_goes_through_the_disk_and_leaves_nothing_there(tmp_path: Path) -> None:
    lines = [LINE * 1000] * 120

    assert len(given("sql", chunked(*lines, kind=LINES), folder=tmp_path)) == 120_000
    assert list(tmp_path.iterdir()) == []


_MEASURED = """
import asyncio, sys
from iggyflux.mapping import Query
from iggyflux.pipeline import InfluxSettings
from iggyflux.transports.influxdb.query.source import InfluxRows

async def main(url):
    source = InfluxRows(InfluxSettings(url=url, database="d"), Query("m", None, "auto", (), (), ()))
    await source.connect()
    window = await source.fetch(0, 2 * 10**18)
    print(sum([len(chunk) async for chunk in window.chunks()]))
    (peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak.split()[1]) // 1024)
    await source.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: memory cannot be read here")
@pytest.mark.parametrize("language", ONE)
def test_memory_does_not_grow_with_the_number_of_rows(language: str) -> None:
    """Half a million rows would be some 300 MB.  (`ru_maxrss` would keep the peak of the parent.)"""
    many, more = 500, f"]{f',[{START},2]' * 999}]"
    pieces = {
        "influxql": [PARTIAL.replace("]]", more)] * (many - 1) + [ROW.replace("]]", more)],
        "sql": [LINE * 1000] * many,
        "flux": [HEAD, *[CSV_ROW * 1000] * many, "\r\n"],
    }[language]
    reply = chunked(*pieces, kind=KINDS[language])

    with RawServer([answering(reply)] * 20, PINGS[language], None) as server:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, server.url], capture_output=True, text=True, check=True, timeout=200
        )

    rows, megabytes = map(int, done.stdout.split())
    assert rows == 500_000
    assert megabytes < 100


def test_no_secret_is_in_any_text() -> None:
    for reply in (
        said(400, f"error parsing query: {SECRET}"),
        inside(f"error parsing query: {SECRET}"),
        said(500, f"cannot use {SECRET}"),
        http(302, "", f"Location: http://x:{SECRET}@elsewhere/"),
    ):
        with pytest.raises((Stopped, NotConnected)) as failed:
            given("influxql", reply)
        assert SECRET not in f"{failed.value!r} {failed.value}"


def test_a_fetch_that_is_cancelled_lets_go_of_its_connection() -> None:
    never, asked = threading.Event(), threading.Event()

    def hang(request: Request) -> Reply:
        if "SELECT" in request.text:
            asked.set()
            return Reply(b"", wait=never)
        return answering(NO_CONTENT)(request)

    async def main(url: str) -> None:
        source = InfluxRows(InfluxSettings(url=url, database="d", timeout_seconds=30.0), query())
        await source.connect()
        task = asyncio.create_task(source.fetch(START, START + 1))
        await asyncio.to_thread(asked.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await source.close()
        never.set()

    with RawServer([hang] * 20, PING_1, None) as server:
        drive(main(server.url))


def test_what_is_under_way_is_cut_at_the_end_and_what_is_over_is_forgotten() -> None:
    never, asked = threading.Event(), threading.Event()

    def hang(request: Request) -> Reply:
        asked.set()
        return Reply(b"", wait=never)

    with RawServer([hang], PING_1, None) as server:
        client = HttpClient(
            parse_address(server.url)[0], tls=None, timeout_seconds=200.0, scrub=Scrubber([]), connections=2
        )
        first, last = Ticket(200.0), Ticket(200.0)
        tickets = [weakref.ref(first), weakref.ref(last)]
        assert not isinstance(client.exchange("GET", "/ping", {}, ticket=first), (Unavailable, Impossible))

        def end() -> None:
            asked.wait(60)
            client.close()

        ending = threading.Thread(target=end)
        ending.start()
        began = time.monotonic()
        found = client.download("POST", "/write", {}, b"x", bytearray().extend, ticket=last)
        ending.join()
        never.set()

    assert isinstance(found, (Unavailable, Impossible))
    assert time.monotonic() - began < 100
    del first, last
    gc.collect()
    assert [ticket() for ticket in tickets] == [None, None]


# --- the simulator ---


def sim(dialect: int, **more: Any) -> SimServer:
    return SimServer(dialect, database="test", **more)


def settings(server: SimServer, **more: Any) -> InfluxSettings:
    org = "org" if server.dialect == 2 else None
    return InfluxSettings(url=server.url, database="test", org=org, timeout_seconds=5.0, **more)


FAULTS = [
    Fault("status", on="query", status=503),
    Fault("status", on="query", status=500),
    Fault("status", on="query", status=429, retry_after=1.0),
    Fault("truncate", on="query", bytes=5_000),
    Fault("truncate", on="query", bytes=10),
    Fault("splice", on="query", bytes=9_000),
    Fault("splice", on="query", bytes=9_000, text="query error: out of memory"),
    Fault("reset", on="query", when="before"),
    Fault("reset", on="query", when="during"),
]


@pytest.mark.parametrize("skip", range(4))
@pytest.mark.parametrize("dialect", [1, 2, 3])
def test_whatever_breaks_a_fetch_gives_all_rows_or_an_error(dialect: int, skip: int) -> None:
    """Faults apply to each of the exchanges of a fetch; asked again, the rows are there."""

    async def main(server: SimServer) -> list[int]:
        source = InfluxRows(settings(server), query())
        await source.connect()
        counts = []
        for fault in FAULTS:
            # Only the framing of HTTP shows where the lines of SQL end: a cut at a line end cannot be noticed.
            if dialect == 3 and fault.kind == "splice" and not fault.text:
                continue
            server.inject(replace(fault, skip=skip))
            for _ in range(3):
                try:
                    counts.append(len(await rows_of(source)))
                    break
                except (NotConnected, TooMuch):
                    await source.connect()
            server.faults.clear()
        await source.close()
        return counts

    with sim(dialect) as server:
        assert write(server, "\n".join(f"m,t={n % 7} f={n}.5 {START + n}" for n in range(1000))).status == 204
        counts = drive(main(server))

    assert counts == [1000] * (len(FAULTS) - (dialect == 3))


def test_settings_that_cannot_be_used_are_refused_at_once() -> None:
    with pytest.raises(PipelineError):
        InfluxRows(InfluxSettings(url="influx.example.org"), query())


def test_a_measurement_has_no_other_time_than_time() -> None:
    async def main(url: str) -> None:
        await InfluxRows(InfluxSettings(url=url, database="test"), query(), column="at").connect()

    with sim(1) as server, pytest.raises(Stopped) as stopped:
        drive(main(server.url))

    assert stopped.value.code == "IFX748"


# --- fields of several numeric types ---

MIXED = FIELDS.replace('["f","float"]', '["f","float"],["f","integer"]')
BOTH = ROW.replace('"c0"]', '"c0","c1"]').replace(f"[{START},1]", f"[{START},7,7]")
PACKED = "Content-Type: application/x-msgpack"


def packed(tree: object) -> Reply:
    body = msgspec.msgpack.encode(tree)
    return Reply(f"HTTP/1.1 200 OK\r\n{PACKED}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def one(*row: object) -> Reply:
    return packed({"results": [{"series": [{"name": "m", "columns": ["time", "c0"], "values": [row]}]}]})


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        (one(START, 7), 7),
        (one(START, 7.0), 7.0),
        (http(200, NO_ROWS, JSON), "IFX751"),
        (http(200, "no MessagePack", PACKED), "IFX747"),
        (one(), "IFX747"),
        (packed({"results": [{}]}), NotConnected),
        (packed({"results": [{"error": "engine is closed"}]}), NotConnected),
        (http(503, '{"error":"busy"}', JSON), NotConnected),
        (http(401, '{"error":"unauthorized"}', JSON), "IFX721"),
        (short("\u0001", PACKED), NotConnected),
    ],
    ids=["integer", "float", "json", "garbage", "no time", "no row", "error", "busy", "unauthorized", "short"],
)
def test_a_number_has_the_type_that_the_server_reports_or_fails(reply: Reply, meaning: object) -> None:
    """An answer without types is never taken for one with types."""
    plain = answering(http(200, BOTH, JSON))

    def answer(request: Request) -> Reply:
        asked = parse_qs(request.text).get("q", [""])[0]
        if "SHOW FIELD KEYS" in asked:
            return http(200, MIXED, JSON)
        return reply if "::field" in asked else plain(request)

    async def main(url: str) -> list[Row]:
        source = InfluxRows(InfluxSettings(url=url, database="d", org=None), query())
        try:
            await source.connect()
            return await rows_of(source)
        finally:
            await source.close()

    with RawServer([answer] * 100, PING_1, None) as server:
        if isinstance(meaning, int | float):
            (row,) = drive(main(server.url))
            assert repr(row.columns["f"]) == repr(meaning)
        elif isinstance(meaning, str):
            with pytest.raises(Stopped) as stopped:
                drive(main(server.url))
            assert stopped.value.code == meaning
        else:
            with pytest.raises(NotConnected):
                drive(main(server.url))


def test_no_part_of_a_secret_remains_wherever_words_are_cut() -> None:
    secret = "Qj7KwVx2Lb9TzRf4YmHs"
    scrub = Scrubber([secret])
    pieces = {secret[start : start + 6] for start in range(len(secret) - 5)}
    texts = []
    for offset in [*range(370, 405), *range(1575, 1605)]:
        words = "-" * offset + secret
        for status in (400, 401, 500):
            texts += [str(judge(Answer(status, {}, body, scrub=scrub), 0)) for body in _bodies(words)]
            texts.append(str(judge(Answer(status, {}, words[: offset + 9].encode(), whole=False, scrub=scrub), 0)))
        texts.append(str(judge_words(words, scrub)))

    assert [text for text in texts if any(piece in text for piece in pieces)] == []


def _bodies(words: str) -> list[bytes]:
    return [words.encode(), json.dumps({"error": words}).encode(), json.dumps({"message": words}).encode()[:-9]]
