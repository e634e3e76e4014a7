"""`make bench`: every benchmark, a table on stderr and a line of JSON each on stdout; `python -m bench plan run`."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = (
    *(
        "plan",
        "shapes",
        "compression",
        "avro",
        "protobuf",
        "read",
        "state",
        "start",
        "run",
        "workers",
        "audit",
        "telemetry",
        "influx",
    ),
    *("letters", "memory"),
)


def main() -> None:
    chosen = sys.argv[1:] or BENCHMARKS
    sys.argv = sys.argv[:1]
    for name in chosen:
        import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
