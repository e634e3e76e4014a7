"""Files of another revision, and which files changed since one: what `git` says of the repository of this directory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import click

from iggyflux.cli.documents import ENDINGS

_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that differs from a revision, by its names there and here; None where there is none.

    Names are relative to this directory.
    """

    old: str | None
    new: str | None


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
    raise click.UsageError(f"{name}: no such file, and {words}")


def commit_of(revision: str) -> str:
    """Return the hash of the commit that a revision of git is, however that is written.  Raise UsageError."""
    for suffix in ("", "^{commit}"):  # a suffix would be a part of `:/words`
        arguments = ("rev-parse", "--verify", "--end-of-options", f"{revision}{suffix}")
        revision = _asked(f"--since {revision}:", "no such revision", *arguments).split()[-1]
    return revision


def changed_files(revision: str, paths: Sequence[str]) -> list[ChangedFile]:
    """Return the files in `paths` that may be documents and differ from `revision`, without submodules.

    A file that was renamed is one file, also where one of its names is not in `paths`; git tells it by its content.
    Files that git does not know are not among them. Raise UsageError.
    """
    about = f"--since {revision}:"
    prefix = _asked(about, "not a directory of files", "rev-parse", "--show-prefix").rstrip("\n")
    options = ["diff", "--no-relative", "--ignore-submodules=all", "-z", "--end-of-options", revision, "--"]
    named = ["--name-status", "--no-renames"]
    parts = _asked(about, "no such revision", options[0], *named, *options[1:], *(paths or ["."])).split("\0")
    for path in paths:
        if not os.path.lexists(path) and _git(about, "cat-file", "-e", f"{revision}:./{path}").returncode:
            raise click.UsageError(f"{path}: no such file or directory, neither here nor in {revision}")
    changes = dict(zip(parts[1::2], parts[::2], strict=False))
    parts = _asked(about, "no such revision", options[0], "--name-status", "-M", "--diff-filter=R", *options[1:]).split(
        "\0"
    )
    renames = {
        old: new
        for old, new in zip(parts[1::3], parts[2::3], strict=False)
        if old.endswith(ENDINGS) and new.endswith(ENDINGS) and (old in changes or new in changes)
    }
    found = {new: old for old, new in renames.items()}
    for name, change in changes.items():
        if name.endswith(ENDINGS) and name not in renames and name not in found:
            found[name] = "" if change == "A" else name
    removed = {name for name, change in changes.items() if change == "D"}

    def here(name: str) -> str | None:
        return os.path.relpath(name, prefix or ".") if name else None

    return [ChangedFile(here(old), here("" if new in removed else new)) for new, old in sorted(found.items())]


def _asked(about: str, default: str, *arguments: str) -> str:
    """Return what git prints.  Raise UsageError with its words if it fails."""
    done = _git(about, *arguments)
    if done.returncode:
        raise click.UsageError(f"{about} {_words(done, default)}")
    return done.stdout.decode("utf-8", "surrogateescape")


def _git(about: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LC_ALL": "C", "GIT_LITERAL_PATHSPECS": "1"}  # `_words` knows an answer
    try:
        return subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env=environment,
        )
    except FileNotFoundError:
        raise click.UsageError(f"{about} git is not installed") from None
    except subprocess.TimeoutExpired:
        raise click.UsageError(f"{about} git gave no answer in {_SECONDS} s") from None


def _words(done: subprocess.CompletedProcess[bytes], default: str) -> str:
    text = done.stderr.decode("utf-8", "replace")
    if "not a git repository" in text.lower():
        return "this directory is not in a repository of git"
    return f"git says: {(text.strip().splitlines() or [default])[0]}"
