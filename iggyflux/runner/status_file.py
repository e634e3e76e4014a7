"""The status file: written every second by a thread of its own, whatever the event loop waits for or renders."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from iggyflux.runner.events import emit
from iggyflux.runner.status import Status

log = logging.getLogger("iggyflux.runner")


class StatusFile:
    """Writes `status` to `file` until it is closed; `seconds` returns the time since the start of the run."""

    def __init__(self, status: Status, file: Path, seconds: Callable[[], float], *, every_seconds: float) -> None:
        self._status = status
        self._file = file
        self._seconds = seconds
        self._every_seconds = every_seconds
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._write_always, name="iggyflux-status", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write the last state; nothing is written after that."""
        self._is_closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._write()

    def _write_always(self) -> None:
        while not self._is_closed.wait(self._every_seconds):
            self._write()

    def _write(self) -> None:
        """Replace the file; a full disk does not stop the run."""
        self._status.seconds = self._seconds()
        beside = self._file.with_name(f"{self._file.name}.new")
        tree = {"time_unix": round(time.time(), 3), **self._status.as_dict()}
        try:
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(tree)) + b"\n")
            beside.replace(self._file)
        except OSError as error:
            emit(log, logging.WARNING, "status.not_written", file=self._file, reason=error.strerror)
