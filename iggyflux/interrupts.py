"""What Ctrl-C does while a process begins and ends: the process exits at once and prints nothing.

At that time no code catches a `KeyboardInterrupt`, and Python prints one that is raised inside an import as an ignored
exception.  Nothing is open yet, or everything is closed.  While a command runs, the command decides.
"""

from __future__ import annotations

import os
import signal

INTERRUPT_CODE = 130
"""The exit code: what a shell reports for a process that SIGINT ended."""


def leave_on_interrupt() -> None:
    """Exit at once on SIGINT, unless the process was started with SIGINT ignored (`nohup`, `&` in a script)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Raise `KeyboardInterrupt` on SIGINT again, if `leave_on_interrupt` changed that."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    os._exit(INTERRUPT_CODE)
