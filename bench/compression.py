"""Compressed payloads of eight values, in JSON: beside plain ones and the call of the library that expands them.

The call is the one that has a bound, if the library has it: `decompress` of `zlib.decompressobj`, `decompress` of
cramjam with a copy to bytes.  All are measured in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from zlib import decompressobj

import cramjam

from bench.plan import COUNT, EIGHT, eight, messages, writer
from bench.table import Figure, best_seconds, show
from iggyflux import Message
from iggyflux.cli.allocator import keep_freed_memory
from iggyflux.payloads import compress
from iggyflux.payloads.format import MAX_PAYLOAD_BYTES

GOAL = 1.05
_LIBRARY: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda payload: decompressobj(31).decompress(payload, MAX_PAYLOAD_BYTES),
    "zlib": lambda payload: decompressobj(15).decompress(payload, MAX_PAYLOAD_BYTES),
    "zstd": lambda payload: bytes(cramjam.zstd.decompress(payload)),
    "lz4": lambda payload: bytes(cramjam.lz4.decompress(payload)),
    "snappy": lambda payload: bytes(cramjam.snappy.decompress(payload)),
    "snappy, blocks": lambda payload: bytes(cramjam.snappy.decompress_raw(payload)),
}


def measure(name: str, library: Callable[[bytes], bytes]) -> Figure:
    """Return the time of rendering compressed payloads beside plain ones and the library."""
    way = name.partition(",")[0]
    plain = messages(eight, COUNT)
    pack: Callable[[bytes], bytes] = partial(compress, compression=way)
    if name != way:
        pack = lambda payload: bytes(cramjam.snappy.compress_raw(payload))  # noqa: E731
    packed = [pack(each.payload) for each in plain]
    batch = [
        Message(payload, "factory", "readings", each.partition, each.offset)
        for each, payload in zip(plain, packed, strict=True)
    ]
    bare = writer(EIGHT).plan()
    plan = writer(EIGHT.replace("payload: json", f"payload: json, compression: {way}")).plan()
    assert list(plan.render(batch).lines) == list(bare.render(plain).lines)
    both, alone, expanding = best_seconds(
        [partial(plan.render, batch), partial(bare.render, plain), lambda: [library(each) for each in packed]],
        25,
        time.process_time,
    )
    ratio = both / (alone + expanding)
    return Figure(name, both * 1e6 / COUNT, "µs/msg", "plain and the library", ratio, f"≤ {GOAL}", ratio <= GOAL)


def main() -> None:
    keep_freed_memory()  # as a run does
    show("compressed payloads", [measure(name, library) for name, library in _LIBRARY.items()])


if __name__ == "__main__":
    main()
