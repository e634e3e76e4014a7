"""Files of another revision, and which files changed since one: what `git` says of the repository of this directory."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Final

import click

from iggyflux.cli.documents import ENDINGS

_SECONDS: Final = 30
_CHANGES: Final = {"A": "added", "M": "changed", "D": "removed", "T": "changed"}


def of_revision(name: str) -> bytes:
    """Return the file `REVISION:PATH`; a path that begins with `./` or `../` is relative to this directory.

    Raise UsageError.
    """
    revision, _, path = name.partition(":")
    relative = path if path.startswith(("./", "../", "/")) else f"./{path}"
    words = ""
    for each in (relative, path):
        done = _git(f"{name}: no such file, and", "cat-file", "blob", f"{revision}:{each}")
        if done.returncode == 0:
            return done.stdout
        words = _words(done, "no such revision or path")
    raise click.UsageError(f"{name}: no such file, and git says: {words}")


def changed_files(revision: str, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return the files in `paths` that may be documents and differ from `revision`: "added", "changed" or "removed".

    Names are relative to this directory. Files that git does not know are not among them. Raise UsageError.
    """
    arguments = ["diff", "--name-status", "--no-renames", "--relative", "-z", "--end-of-options", revision, "--"]
    done = _git(f"--since {revision}:", *arguments, *(paths or ["."]))
    if done.returncode:
        raise click.UsageError(f"--since {revision}: git says: {_words(done, 'no such revision')}")
    parts = done.stdout.decode("utf-8", "surrogateescape").split("\0")
    found = zip(parts[1::2], parts[::2], strict=False)
    return [(file, _CHANGES.get(change, "changed")) for file, change in found if file.endswith(ENDINGS)]


def _git(about: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        raise click.UsageError(f"{about} git is not installed") from None
    except subprocess.TimeoutExpired:
        raise click.UsageError(f"{about} git gave no answer in {_SECONDS} s") from None


def _words(done: subprocess.CompletedProcess[bytes], default: str) -> str:
    return (done.stderr.decode("utf-8", "replace").strip().splitlines() or [default])[0]
