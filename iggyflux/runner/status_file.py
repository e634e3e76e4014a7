"""The status file: written every second by a thread of its own, whatever the event loop waits for or renders."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from iggyflux.disk import write_whole
from iggyflux.escapes import json_text
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
        """Replace the file, or write to the device or pipe at the path; a full disk does not stop the run."""
        self._status.seconds = self._seconds()
        beside = self._file.with_name(f"{self._file.name}.new")
        tree = {"time_unix": round(time.time(), 3), **self._status.as_dict()}
        data = (json_text(tree, indent=True) + "\n").encode()
        try:
            if self._file.exists() and not self._file.is_file():
                _write(self._file, os.O_NONBLOCK, data)  # a pipe without a reader is an error at once
                return
            beside.unlink(missing_ok=True)
            _write(beside, os.O_CREAT | os.O_EXCL, data)
            beside.replace(self._file)
        except OSError as error:
            emit(log, logging.WARNING, "status.not_written", file=self._file, reason=error.strerror)


def _write(file: Path, flags: int, data: bytes) -> None:
    """Write `data` to `file`, which only its owner may read if it is new."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        write_whole(descriptor, data)
    finally:
        os.close(descriptor)
