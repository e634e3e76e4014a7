"""The retention of a folder of letters while runs use it: the same for all, since each removes letters of the others.

| the folder                            | a run that begins to use it                                    |
|---------------------------------------|----------------------------------------------------------------|
| no other run uses it                  | writes its rules to `.retention`                               |
| the runs that use it have equal rules | uses it too                                                    |
| they have other rules, or none        | is refused (IFX829): it neither keeps nor removes letters here |

A run uses it from its first letter, or from its start if the folder exists, until it ends, also by a crash: it holds
`.retention` locked, shared, and who can lock it alone is the first.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from iggyflux.disk import open_private, write_whole
from iggyflux.errors import Stopped
from iggyflux.pipeline import Retention
from iggyflux.transports.local.append_file import leads_to

FILE: Final = ".retention"
_MOST_BYTES: Final = 1000


class FolderRules:
    """The claim of one run to a folder of letters, for one thread."""

    def __init__(self, folder: Path, rules: Retention | None) -> None:
        """`rules` is None where nothing is removed."""
        self._path = folder / FILE
        self._words = _words(rules)
        self._descriptor: int | None = None

    def claim(self) -> None:
        """Use the folder, which exists, with these rules; idempotent.

        Raise `Stopped` (IFX829) if other runs use it with other rules, and `OSError`.
        """
        if self._descriptor is not None and leads_to(self._path, self._descriptor):
            return
        self.release()
        descriptor = open_private(self._path)
        try:
            self._agree(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _agree(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            os.ftruncate(descriptor, 0)
            write_whole(descriptor, self._words.encode())
        # Another run may have it alone for a moment, before or after this line: what is in the file then decides.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        found = os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace")
        if found != self._words:
            raise Stopped(
                f"another run keeps dead letters in {self._path.parent} with another retention"
                f" ({found}; here: {self._words})",
                "give both the same `keep` and `max_bytes`, or one of them another `path`; after a change of them, stop"
                " the other run first",
                "IFX829",
            )

    def release(self) -> None:
        """End the use; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _words(rules: Retention | None) -> str:
    if rules is None:
        return "nothing is removed"
    keep = None if rules.keep_seconds is None else f"keep: {rules.keep_seconds:.15g}s"
    size = None if rules.max_bytes is None else f"max_bytes: {rules.max_bytes}"
    return ", ".join(filter(None, (keep, size)))
