"""A .proto file to descriptors, by the compiler of grpcio-tools as a process.

Names of imports are paths from one of the folders that the document names, as with `protoc -I`, or from the file's own.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final

from iggyflux.payloads.format import OptionError, ReadFile
from iggyflux.payloads.protobuf.schema import BAD_SCHEMA

NO_COMPILER: Final = "IFX177"
_SECONDS: Final = 60
_MOST_FILES: Final = 200
_MOST_PARENTS: Final = 4
"""How many folders around that of the file are looked at for the hint."""
_IMPORT: Final = re.compile(
    rb"""(?:\A|[;}])\s*import\s+(?:(?:public|weak|option)\s+)?(?:"([^"\n]*)"|'([^'\n]*)')\s*(?=;)"""
)
# What does not end is read to the end of the line or of the file: else each quote in it would be tried again.
_COMMENT: Final = re.compile(
    rb"""("(?:\\.|[^"\\\n])*+\\?(?:"|\n|\Z)|'(?:\\.|[^'\\\n])*+\\?(?:'|\n|\Z))|//[^\n]*|/\*.*?(?:\*/|\Z)""",
    re.DOTALL,
)
_OWN: Final = "google/protobuf/"


def descriptors_of(name: str, read: ReadFile, import_paths: Sequence[str] = ()) -> bytes | None:
    """Return a serialized FileDescriptorSet of the file and what it imports; None if the file is missing: reported.

    Imports are looked for in `import_paths`, in their order, then in the folder of the file.  Raise OptionError.
    """
    if find_spec("grpc_tools") is None:
        hint = "pip install 'iggyflux[protoc]', or make a `descriptor` with protoc"
        raise OptionError("a .proto file needs a compiler", "proto", code=NO_COMPILER, hint=hint)
    name = posixpath.normpath(name.replace("\\", "/"))
    own = posixpath.dirname(name) or "."
    folders = [posixpath.normpath(each.replace("\\", "/")) for each in import_paths]
    main = next((found for each in folders if (found := _below(name, each)) is not None), posixpath.basename(name))
    content = read(name, "proto")
    if content is None:
        return None
    files = {main: content}
    waiting = [(main, each) for each in _imports(content)]
    while waiting:
        importer, each = waiting.pop(0)
        if each in files or each.startswith(_OWN):
            continue
        if posixpath.normpath(each) != each or each.startswith(("/", "..")) or ":" in each or len(files) >= _MOST_FILES:
            hint = "write the path from the folder of the .proto file, or from one of `import_paths`"
            raise OptionError(f"cannot follow the import of {each!r}", "proto", code=BAD_SCHEMA, hint=hint)
        files[each] = _imported(each, importer, list(dict.fromkeys([*folders, own])), read)
        waiting += [(each, inner) for inner in _imports(files[each])]
    return _compiled(main, tuple(sorted(files.items())))


def _below(name: str, folder: str) -> str | None:
    """Return the path of a file from a folder; None if it is not in it."""
    if folder == ".":
        return name
    return name.removeprefix(f"{folder}/") if name.startswith(f"{folder}/") else None


def _imported(name: str, importer: str, folders: Sequence[str], read: ReadFile) -> bytes:
    """Return the content of an imported file, which is in one of `folders`."""
    for folder in folders:
        if (content := read(posixpath.join(folder, name), None)) is not None:
            return content
    above = list(islice(_parents(folders[-1]), _MOST_PARENTS))
    found = next((each for each in above if read(posixpath.join(each, name), None) is not None), None)
    where = (
        f"set `import_paths: {found}`" if found else "name the folder from which imports are written: `import_paths`"
    )
    reason = f"{importer!r} imports {name!r}, and no such file can be read in {', '.join(map(repr, folders))}"
    raise OptionError(reason, "proto", code=BAD_SCHEMA, hint=where)


def _parents(folder: str) -> Iterator[str]:
    """Yield the folders around a folder, the inner ones first."""
    while True:
        folder = posixpath.normpath(posixpath.join(folder, ".."))
        yield folder


def _imports(content: bytes) -> list[str]:
    text = _COMMENT.sub(lambda match: match[1] or b" ", content)
    return [(match[1] or match[2] or b"").decode("utf-8", "replace") for match in _IMPORT.finditer(text)]


@lru_cache(maxsize=16)
def _compiled(main: str, files: tuple[tuple[str, bytes], ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="iggyflux-proto-") as folder:
        for name, content in files:
            path = Path(folder, "in", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        out = Path(folder, "out")
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}/in", "--include_imports"]
        command += [f"--descriptor_set_out={out}", f"{folder}/in/{main}"]
        try:
            run = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OptionError(f"the compiler did not run: {error}", "proto", code=BAD_SCHEMA) from None
        if run.returncode == 0:
            return out.read_bytes()
    said = run.stderr.decode("utf-8", "replace").replace(f"{folder}/in/", "").strip().splitlines()
    reason = next((line for line in said if ": warning:" not in line), "the compiler gave no reason")
    raise OptionError(f"it does not compile: {reason[:300]}", "proto", code=BAD_SCHEMA)
