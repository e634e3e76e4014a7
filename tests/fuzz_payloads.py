"""Feed a payload format with bytes that a fuzzer finds by coverage (atheris, in a venv of its own: `make fuzz`).

A payload gives a plain value or a `DecodeError`, as everywhere.  A value has the same meaning to each decoder of the
format, strict or not, whole or by parts; and written and read again it is the same.  The first bytes of the input
select options; the rest is the payload.  A finding stops the run, and libFuzzer keeps the input.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["iggyflux.payloads", "iggyflux.lineprotocol", "xmltodict", "csv"]):
    from iggyflux.errors import DecodeError, RecordError
    from iggyflux.payloads import FORMATS, compress, expand

from tests.test_payloads import SAMPLES, assert_plain, bound

SECONDS = 10
MEGABYTES = 1500
COMPRESSIONS = ("gzip", "zlib", "zstd", "lz4", "snappy", "auto")


@dataclass(frozen=True)
class Variant:
    """A format with some options: its decoders, made once, the first of them for whole payloads, and its encoder."""

    decoders: tuple[Callable[[bytes], Any], ...]
    encode: Callable[[Any], bytes]

    def check(self, payload: bytes) -> None:
        """Raise AssertionError if one decoder does not agree with another, or a value does not come back."""
        values = []
        for decode in self.decoders:
            try:
                values.append(decode(payload))
            except DecodeError:
                continue
            assert told(values[-1]) == told(values[0])
        if values:
            assert_plain(values[0])
            try:
                written = self.encode(values[0])
            except RecordError:
                return  # a value that the format cannot write
            assert told(self.decoders[0](written)) == told(values[0]), written


def told(value: Any) -> str:
    """Return the JSON of a value: in Python 1, 1.0 and true are equal."""
    return json.dumps(value, sort_keys=True)


def variant(name: str, options: Mapping[str, Any]) -> Variant:
    """Return the format of this name with these options."""
    flags = [(strict, typed) for typed in (False, True) for strict in (False, True)]
    return Variant(
        tuple(FORMATS[name].bound(options, None, strict, typed=typed) for strict, typed in flags),
        lambda value: FORMATS[name].encode(value, options),
    )


def check_compression(name: str, payload: bytes) -> None:
    """Raise AssertionError if what was expanded does not come back."""
    try:
        expanded = expand(payload, name)
    except DecodeError:
        return
    assert name == "auto" or expand(compress(expanded, name), name) == expanded


def main() -> None:
    """Fuzz the format of the first argument; the others are libFuzzer's."""
    name, *others = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if name == "compression":
            seeds = [
                bytes([number]) + compress(b"some text " * 9, each) for number, each in enumerate(COMPRESSIONS[:-1])
            ]

            def check(data: bytes) -> None:
                if data:
                    check_compression(COMPRESSIONS[data[0] % len(COMPRESSIONS)], data[1:])
        else:
            variants = [variant(name, bound(name, more)) for _, more in SAMPLES[name]]
            seeds = [
                bytes([number]) + each.encode(value)
                for number, (each, (value, _)) in enumerate(zip(variants, SAMPLES[name], strict=True))
            ]

            def check(data: bytes) -> None:
                if data:
                    variants[data[0] % len(variants)].check(data[1:])

        for number, seed in enumerate(seeds):
            Path(folder, str(number)).write_bytes(seed)
        limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-max_len=4096"]
        atheris.Setup([sys.argv[0], *limits, *others, folder], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
