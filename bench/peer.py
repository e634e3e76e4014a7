"""One way of rendering in a process of its own: `python -m bench.peer NAME INPUT OUTPUT` prints version and CPU time.

It runs in the venv of the peers, so only a function that needs iggyflux imports it.  INPUT has a message a line; the
lines go to OUTPUT, to be compared.  The first passes warm up, as in a process that runs for long; the rest is measured.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

WARM: Final = 3
PASSES: Final = 5
Render = Callable[[Sequence[bytes]], Iterable[str]]


def f_string(loads: Callable[[bytes], Any], payloads: Sequence[bytes]) -> list[str]:
    """Return the lines that a script by hand makes for one kind of message: nothing is checked or escaped."""
    lines = []
    for payload in payloads:
        it = loads(payload)
        device = it["device"]
        lines.append(
            f"env,device={device['id']},site={device['site']} temperature={it['celsius']},humidity={it['humidity']},"
            f'pressure={it["pressure"]},count={it["count"]}i,state="{it["state"]}" {it["ts"]}000000'
        )
    return lines


def _iggyflux() -> Render:
    from bench.plan import EIGHT, writer
    from iggyflux import Message

    plan = writer(EIGHT).plan()
    return lambda payloads: plan.render([Message(each, offset=n) for n, each in enumerate(payloads)]).lines


def _by_hand() -> Render:
    from bench.plan import by_hand

    return lambda payloads: list(map(by_hand, payloads))


def _orjson() -> Render:
    loads = import_module("orjson").loads
    return lambda payloads: f_string(loads, payloads)


def _collected(client: Any, write: Callable[[Sequence[bytes]], object]) -> Render:
    """Return what `write` gives to `client` of influxdb3-python: its requests are kept in place of being sent."""
    bodies: list[bytes] = []
    client._write_api._post_write = lambda _async, _bucket, _org, body, *_, **__: bodies.append(body)  # noqa: SLF001

    def render(payloads: Sequence[bytes]) -> list[str]:
        bodies.clear()
        write(payloads)
        return [line for body in bodies for line in body.decode().split("\n")]

    return render


def _quix() -> Render:
    """As an application does: its deserializer, a function that flattens, the sink's batch and `write`."""
    client = import_module("influxdb_client_3").InfluxDBClient3
    deserialize = import_module("quixstreams.models").JSONDeserializer()
    batch_of = import_module("quixstreams.sinks.base").SinkBatch
    sink = import_module("quixstreams.sinks.core.influxdb3").InfluxDB3Sink(
        token="t", host="http://127.0.0.1:1", organization_id="o", database="d", measurement="env", time_setter="ts",
        tags_keys=["device", "site"], fields_keys=["temperature", "humidity", "pressure", "count", "state"],
    )  # fmt: skip
    sink._client = client(**sink._client_args)  # noqa: SLF001

    def write(payloads: Sequence[bytes]) -> None:
        batch = batch_of("readings", 0)
        for offset, payload in enumerate(payloads):
            it = deserialize(payload, None)
            value = {**it, "device": it["device"]["id"], "site": it["device"]["site"], "temperature": it["celsius"]}
            batch.append(value=value, key=None, timestamp=0, headers=[], offset=offset)
        sink.write(batch)

    return _collected(sink._client, write)  # noqa: SLF001


def _mqtt2influxdb() -> Render:
    """Its handler of a message.  It takes the time from the member `timestamp`, in seconds."""
    fields: dict[str, object] = {name: f"$.payload.{name}" for name in ("humidity", "pressure", "state")}
    fields |= {"temperature": "$.payload.celsius", "count": {"value": "$.payload.count", "type": "int"}}
    tags = {"device": "$.payload.device.id", "site": "$.payload.device.site"}
    bridge = import_module("mqtt2influxdb.mqtt2influxdb").Mqtt2InfluxDB(
        import_module("mqtt2influxdb.config").Config(
            mqtt={"host": "h", "port": 1883},
            influxdb={"host": "http://127.0.0.1", "token": "t", "org": "o", "bucket": "b"},
            points=[{"measurement": "env", "topic": "readings", "tags": tags, "fields": fields}],
        )
    )
    message_of = import_module("paho.mqtt.client").MQTTMessage

    def write(payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            message = message_of(topic=b"readings")
            message.payload = payload
            bridge._on_mqtt_message(None, None, message)  # noqa: SLF001

    return _collected(bridge._influxdb, write)  # noqa: SLF001


VRL: Final = """\
line = "env,device=" + string!(.device.id) + ",site=" + string!(.device.site)
line = line + " temperature=" + to_string!(.celsius) + ",humidity=" + to_string!(.humidity)
line = line + ",pressure=" + to_string!(.pressure) + ",count=" + to_string!(.count) + "i"
line = line + ",state=\\"" + string!(.state) + "\\" " + to_string!(.ts) + "000000"
. = {"line": line}
"""


def _vrl() -> Render:
    """Vector's compiler and runtime; nothing is escaped.  Making text of bytes and bytes of text is in its time."""
    execute = import_module("vector_vrl").execute_vrl
    return lambda payloads: [event["line"] for event in execute(VRL, [payload.decode() for payload in payloads])]


@dataclass(frozen=True)
class Peer:
    title: str
    make: Callable[[], Render]
    package: str
    unit: str = "ns"
    """Of the times in its lines."""
    ours: bool = False
    """Whether it runs in the project's venv."""
    count: int = 5_000


PEERS: Final = {
    "iggyflux": Peer("iggyflux", _iggyflux, "iggyflux", ours=True),
    "orjson": Peer("by hand: orjson, f-string", _orjson, "orjson"),
    "vrl": Peer("VRL in Python (vector-vrl)", _vrl, "vector-vrl"),
    "by-hand": Peer("by hand: json, jmespath, influxdb-client", _by_hand, "influxdb-client", ours=True, count=1_000),
    "quix": Peer("Quix Streams, InfluxDB3Sink", _quix, "quixstreams", "ms", count=1_000),
    "mqtt2influxdb": Peer("mqtt2influxdb", _mqtt2influxdb, "mqtt2influxdb", count=100),
}


def main() -> None:
    peer = PEERS[sys.argv[1]]
    payloads = Path(sys.argv[2]).read_bytes().splitlines()[: peer.count]
    render = peer.make()
    for _ in range(WARM):
        lines = list(render(payloads))
    start = time.process_time()
    for _ in range(PASSES):
        render(payloads)
    seconds = (time.process_time() - start) / PASSES
    Path(sys.argv[3]).write_text("\n".join(lines), "utf-8")
    print(json.dumps({"version": version(peer.package), "micros": seconds * 1e6 / len(payloads)}))


if __name__ == "__main__":
    main()
