"""`make bench`: every benchmark, a table on stderr and a line of JSON each on stdout."""

from __future__ import annotations

import sys

from bench import log, plan, start


def main() -> None:
    chosen = sys.argv[1:]
    for name, benchmark in (("plan", plan), ("start", start), ("log", log)):
        if not chosen or name in chosen:
            benchmark.main()


main()
