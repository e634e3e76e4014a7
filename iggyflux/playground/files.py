"""The one folder of the playground: mappings directly in it can be opened and saved, and nothing else.

No other folder, no link, no hidden file, no file of another kind.  What something else changed is not overwritten.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iggyflux.disk import replace_file
from iggyflux.documents import EditableText, read_source
from iggyflux.errors import DocumentError, IggyfluxError

ENDINGS: Final = (".yaml", ".yml", ".toml")
_NAME: Final = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f]{1,120}\.(?:yaml|yml|toml)")
_MOST_LISTED: Final = 200


class FileRefused(IggyfluxError):
    """A file that cannot be opened or saved here: a code, a reason and a hint."""

    def __init__(self, code: str, reason: str, hint: str) -> None:
        self.code = code
        self.reason = reason
        self.hint = hint
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file: `version` tells whether it was changed since."""

    name: str
    text: str
    version: str


class Folder:
    """The folder at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def names(self) -> list[str]:
        """Return the names of the mappings that can be opened, sorted."""
        try:
            entries = sorted(self.path.iterdir())
        except OSError:
            return []
        return [each.name for each in entries if _NAME.fullmatch(each.name) and _is_file(each)][:_MOST_LISTED]

    def open(self, name: str) -> Opened:
        """Return a file.  Raise FileRefused."""
        path = self._path(name)
        if not _is_file(path):
            raise FileRefused("IFX524", f"there is no file {name!r} here", "choose one of the list")
        try:
            data = read_source(path)
            text = EditableText.of(data)
        except OSError as error:
            raise FileRefused("IFX100", f"cannot read {name!r}: {error.strerror}", "check its permissions") from error
        except DocumentError as error:
            problem = error.problems[0]
            raise FileRefused(problem.code, problem.message, problem.hint or "correct the file") from error
        if text is None:
            raise FileRefused("IFX524", f"{name!r} has line breaks of several kinds", "convert it first")
        return Opened(name, text.text, _version(data))

    def save(self, name: str, text: str, version: str | None) -> Opened:
        """Write a file that was opened with `version`; None is for one that does not exist yet.  Raise FileRefused."""
        path = self._path(name)
        exists = os.path.lexists(path)
        if exists and version is None:
            raise FileRefused("IFX525", f"{name!r} exists already", "open it first, or save under another name")
        try:
            form: EditableText | None = None
            if exists:
                if self.open(name).version != version:
                    raise FileRefused("IFX525", f"{name!r} was changed meanwhile", "open it again, or save a copy")
                form = EditableText.of(read_source(path))
            data = form.with_text(text) if form is not None else text.encode("utf-8")
            if exists:
                replace_file(path, data)
            else:
                with path.open("xb") as file:
                    file.write(data)
        except FileExistsError as error:
            raise FileRefused("IFX525", f"{name!r} exists already", "save under another name") from error
        except UnicodeEncodeError as error:
            raise FileRefused("IFX103", "the text has half a character", "remove it") from error
        except OSError as error:
            raise FileRefused("IFX524", f"cannot write {name!r}: {error.strerror}", "check permissions") from error
        return Opened(name, text, _version(data))

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise FileRefused("IFX524", f"{name!r} is not a name of a mapping here", "use a name such as mapping.yaml")
        return self.path / name


def _is_file(path: Path) -> bool:
    """Return whether a path is a regular file itself, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
