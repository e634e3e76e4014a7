"""The regression guard of `make check`: the time of rendering against that of other work on the same messages.

A ratio survives a busy machine; a pace in seconds does not.  `python -m bench.guard` measures bench/ratios.json anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bench.peer import f_string
from bench.plan import EIGHT, Reading, eight, messages, writer
from bench.table import best_seconds
from iggyflux import Message

BASELINE: Final = Path(__file__).with_name("ratios.json")
ROOM: Final = 1.35
"""How many times its baseline a ratio may be: Python's versions and processors differ."""
TRIES: Final = 6

Render = Callable[[Sequence[Message]], object]


def ratios(render: Render, batch: Sequence[Message]) -> dict[str, float]:
    """Return the CPU time of `render` ÷ that of a script by hand, and ÷ that of decoding into structs alone."""
    payloads = [message.payload for message in batch]
    decode = msgspec.json.Decoder(Reading).decode
    ours, script, decoding = best_seconds(
        [
            lambda: render(batch),
            lambda: f_string(msgspec.json.decode, payloads),
            lambda: list(map(decode, payloads)),
        ],
        15,
        time.process_time,
    )
    return {"a script by hand": ours / script, "typed decoding": ours / decoding}


def slower(render: Render | None = None) -> dict[str, tuple[float, float]]:
    """Return each ratio that is above its limit in every try: the lowest, and the limit.  `render` is the plan's."""
    limit = {name: ratio * ROOM for name, ratio in json.loads(BASELINE.read_text()).items()}
    batch = messages(eight, 2_000)
    render = render or writer(EIGHT).plan().render
    best: dict[str, float] = {}
    for _ in range(TRIES):
        for name, ratio in ratios(render, batch).items():
            best[name] = min(ratio, best.get(name, ratio))
        over = {name: (ratio, limit[name]) for name, ratio in best.items() if ratio > limit[name]}
        if not over:
            break
    return over


def main() -> None:
    batch, render = messages(eight, 2_000), writer(EIGHT).plan().render
    tries = [ratios(render, batch) for _ in range(TRIES)]
    found = {name: round(median(each[name] for each in tries), 2) for name in tries[0]}
    BASELINE.write_text(json.dumps(found) + "\n")
    print(tries)


if __name__ == "__main__":
    main()
