"""The process that answers questions about texts, started by `desk`: a line of JSON in, a line of JSON out.

It opens no file that a question names.  It has a limit of memory, and one of processor time for each question, at which
the system ends it: so the limit is the same on a busy machine, and what a text makes it do ends with it.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Final

import msgspec

from iggyflux.playground.service import QUESTIONS, Question

PROCESS_BYTES: Final = 3 * 2**30
TOO_LONG: Final = "IFX523"
SMALLER: Final = "use fewer or smaller samples, or a simpler expression"


def main() -> None:
    """Answer the questions on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process
    for limit, number in ((resource.RLIMIT_AS, PROCESS_BYTES), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not every system has such limits
            resource.setrlimit(limit, (number, number))
    seconds = float(sys.argv[1])
    for line in sys.stdin.buffer:
        name, _, body = line.partition(b" ")
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends a process that does not handle it
        answered = answer(name.decode(), body)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(answered + b"\n")
        sys.stdout.buffer.flush()


def answer(name: str, body: bytes) -> bytes:
    """Return the answer to a question as JSON, on one line.

    A bug is named by its type and place only: its text can contain data.
    """
    try:
        made = QUESTIONS[name](msgspec.json.decode(body, type=Question))
    except (MemoryError, RecursionError):
        made = {"fault": {"code": TOO_LONG, "message": "this takes too much memory", "line": 0, "hint": SMALLER}}
    except Exception as error:  # the page goes on
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
        made = {
            "fault": {"code": "", "message": f"a bug in iggyflux: {place}; please report it", "line": 0, "hint": None}
        }
    return msgspec.json.encode(made)


if __name__ == "__main__":
    main()
