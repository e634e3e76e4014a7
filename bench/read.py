"""Reading: bytes of an answer to payloads ready to send, against influxdb-client's stream and json.dumps.

The same rows in every form, without a network.  Memory is that of a process of its own, over windows of two sizes.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import urllib3
from influxdb_client.client.flux_csv_parser import FluxCsvParser, FluxSerializationMode

from bench.table import Figure, best_seconds, show
from iggyflux import parse_mapping
from iggyflux.cursors import CursorStore, cursor_state
from iggyflux.delivery.windows import Read, ReadPosition
from iggyflux.mapping import ReaderMapping
from iggyflux.plan import digest_rows
from iggyflux.records import Row
from iggyflux.timestamps import format_rfc3339
from iggyflux.transports.influxdb.query.rows import AnswerColumn, Layout, decode_flux, decode_influxql, decode_jsonl
from iggyflux.transports.influxdb.query.spool import BLOCK_BYTES

COUNT = 50_000
SERIES = 200
START = 1_700_000_000_000_000_000
STEP = 10 * 10**9
WINDOW = (START, START + 10**9 * 86_400 * 365)
TAGS = ("device", "site")
LAYOUT = Layout(
    (
        AnswerColumn("temperature", "float"),
        AnswerColumn("humidity", "float"),
        AnswerColumn("count", "integer"),
        AnswerColumn("state", "string"),
    ),
    {"device": "device", "site": "site"},
)
SMALLER = 200_000
LARGER = 1_000_000
MOST_MEGABYTES = 150

READER = """
iggyflux: 1
kind: reader
name: env-history
from: {measurement: env}
messages:
  - payload: "{device: device, site: site, celsius: temperature, humidity: humidity, n: count, state: state, at: time}"
    key: device
to: {stream: factory, topic: env-history, payload: json}
"""


def values(count: int) -> Iterator[tuple[int, str, str, float, float, int, str]]:
    """Return rows by series, as servers send them; each device reports at a whole ten seconds, as agents do."""
    source = random.Random(7)
    for number in range(count):
        series = number * SERIES // count
        yield (
            START + (number - series * count // SERIES) * STEP,
            f"dev-{series:03}",
            ("berlin", "lyon", "porto")[series % 3],
            round(source.uniform(-20, 40), 2),
            round(source.uniform(10, 95), 1),
            source.randrange(100_000),
            source.choice(("ok", "warn", "stopped")),
        )


def as_flux(count: int) -> bytes:
    head = (
        "#datatype,string,long,dateTime:RFC3339,string,string,string,double,double,long,string\r\n"
        "#group,false,false,false,true,true,true,false,false,false,false\r\n"
        "#default,_result,,,,,,,,,\r\n"
        ",result,table,_time,_measurement,device,site,temperature,humidity,count,state\r\n"
    )
    lines = [
        f",,{device[-3:]},{format_rfc3339(at)},env,{device},{site},{celsius!r},{humidity!r},{number},{state}\r\n"
        for at, device, site, celsius, humidity, number, state in values(count)
    ]
    return (head + "".join(lines) + "\r\n").encode()


def as_influxql(count: int) -> bytes:
    """Return one JSON document for each series and 10,000 rows, as `chunked=true` makes them."""
    series: dict[tuple[str, str], list[object]] = {}
    for at, device, site, *rest in values(count):
        series.setdefault((device, site), []).append([at, *rest])
    columns = ["time", "temperature", "humidity", "count", "state"]
    documents = [
        {"results": [{"statement_id": 0, "series": [
            {"name": "env", "tags": {"device": device, "site": site}, "columns": columns, "values": rows}
        ]}]}
        for (device, site), rows in series.items()
    ]  # fmt: skip
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in documents)


def as_jsonl(count: int) -> bytes:
    names = ("time", "device", "site", "temperature", "humidity", "count", "state")
    return b"".join(
        json.dumps(dict(zip(names, row, strict=True)), separators=(",", ":")).encode() + b"\n" for row in values(count)
    )


def blocks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), BLOCK_BYTES):
        yield data[start : start + BLOCK_BYTES]


def by_hand(data: bytes) -> list[bytes]:
    """What `query_stream` does with an answer, and what users do with its records."""
    response = urllib3.HTTPResponse(body=io.BytesIO(data), preload_content=False)
    parser = FluxCsvParser(response=response, serialization_mode=FluxSerializationMode.stream)
    return [json.dumps(record.values, default=datetime.isoformat).encode() for record in parser.generator()]


FORMS: dict[str, Callable[[Iterator[bytes]], Iterator[list[Row]]]] = {
    "annotated CSV": lambda data: decode_flux(data, "time", WINDOW, {name: name for name in TAGS}),
    "v1 JSON": lambda data: decode_influxql(data, LAYOUT, "time", WINDOW),
    "v3 jsonl": lambda data: decode_jsonl(data, "env", WINDOW, TAGS),
}
MAKERS = {"annotated CSV": as_flux, "v1 JSON": as_influxql, "v3 jsonl": as_jsonl}


def ours(form: str, data: bytes, store: CursorStore | None = None, read: Read | None = None) -> int:
    """Make messages and keep none; with a store, rows are compared with their digests, and these are stored."""
    mapping = parse_mapping(READER)
    assert isinstance(mapping, ReaderMapping)
    plan = mapping.plan()
    deduplicator = None if store is None or read is None else store.deduplicator(read, "time")
    made = 0
    for rows in FORMS[form](blocks(data)):
        digests = digest_rows(rows)
        if deduplicator is not None:
            chosen = deduplicator.select(rows, digests)
            fresh = [rows[index] for index, _ in chosen]
            assert len(fresh) == len(rows)
        made += len(plan.render(rows, digests).messages)
    if deduplicator is not None:
        deduplicator.finish()
        deduplicator.close()
    return made


def overlapping(data: bytes, folder: Path) -> Callable[[], int]:
    """All rows of a window are stored and compared with as many others, and all are new: the most expensive case."""
    store = CursorStore(cursor_state(folder, "bench"), "bench", {})
    store.open()
    other = [Row({"time": START + number}, "other") for number in range(COUNT)]
    first = Read(*WINDOW, "tail", WINDOW[0], WINDOW[0])
    deduplicator = store.deduplicator(first, "time")
    deduplicator.select(other, digest_rows(other))
    store.commit(ReadPosition(WINDOW[0], WINDOW[1]), deduplicator)
    again = Read(*WINDOW, "tail", WINDOW[1], WINDOW[0])
    return lambda: ours("v1 JSON", data, store, again)


MEMORY = """\
import asyncio, sys, tempfile
from pathlib import Path
from bench.read import FORMS, MAKERS, SMALLER, blocks, ours
from iggyflux.transports.influxdb.query.spool import Spool
from iggyflux.plan import digest_rows
from iggyflux import parse_mapping
from bench.read import READER
form, count = sys.argv[1], int(sys.argv[2])
spool = Spool(Path(tempfile.gettempdir()), 10**12)
with open(sys.argv[3], "rb") as file:
    while block := file.read(65536):
        spool.append(block)
plan = parse_mapping(READER).plan()
made = 0
for rows in FORMS[form](spool.blocks()):
    made += len(plan.render(rows, digest_rows(rows)).messages)
assert made == count, made
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(peak.split()[1]) / 1000)
"""


def peak_megabytes(form: str, count: int) -> float:
    """Return the most memory of a process that takes a window of `count` rows from the wire to messages."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(MAKERS[form](count))
        file.flush()
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, form, str(count), file.name], check=True, capture_output=True, text=True
        )
    return float(done.stdout)


def main() -> None:
    data = {form: make(COUNT) for form, make in MAKERS.items()}
    assert {ours(form, data[form]) for form in FORMS} == {COUNT}
    assert len(by_hand(data["annotated CSV"])) == COUNT
    with tempfile.TemporaryDirectory() as folder:
        hand, csv, json_, lines, overlap = best_seconds(
            [
                lambda: by_hand(data["annotated CSV"]),
                lambda: ours("annotated CSV", data["annotated CSV"]),
                lambda: ours("v1 JSON", data["v1 JSON"]),
                lambda: ours("v3 jsonl", data["v3 jsonl"]),
                overlapping(data["v1 JSON"], Path(folder)),
            ],
            7,
            time.process_time,
        )
    micro = 1e6 / COUNT
    against = "by hand, faster"
    share = overlap / json_ - 1
    figures = [
        Figure("by hand (query_stream, json.dumps)", hand * micro, "µs/row"),
        Figure("annotated CSV to payloads", csv * micro, "µs/row", against, hand / csv, "≥ 2", hand / csv >= 2),
        Figure("v1 JSON to payloads", json_ * micro, "µs/row", against, hand / json_, "≥ 4", hand / json_ >= 4),
        Figure("v3 jsonl to payloads", lines * micro, "µs/row", against, hand / lines, "≥ 4", hand / lines >= 4),
        Figure("v1 JSON with an overlap", overlap * micro, "µs/row", "v1 JSON, more", share, "< 0.3", share < 0.3),
    ]
    for form in FORMS:
        small, large = peak_megabytes(form, SMALLER), peak_megabytes(form, LARGER)
        name = f"memory, {form}, {LARGER // 1000}k rows"
        goal = f"< {MOST_MEGABYTES} MB"
        figures.append(
            Figure(name, large, "MB", f"{SMALLER // 1000}k rows", large / small, goal, large < MOST_MEGABYTES)
        )
    show(f"reading, {COUNT:,} rows of 7 columns", figures)


if __name__ == "__main__":
    main()
