"""A .proto file to descriptors, by the compiler of grpcio-tools as a process; imports are beside the file."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
import tempfile
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from iggyflux.payloads.format import OptionError, ReadFile
from iggyflux.payloads.protobuf.schema import BAD_SCHEMA

NO_COMPILER: Final = "IFX177"
_SECONDS: Final = 60
_MOST_FILES: Final = 200
_IMPORT: Final = re.compile(
    rb"""(?:\A|[;}])\s*import\s+(?:(?:public|weak|option)\s+)?(?:"([^"\n]*)"|'([^'\n]*)')\s*(?=;)"""
)
# What does not end is read to the end of the line or of the file: else each quote in it would be tried again.
_COMMENT: Final = re.compile(
    rb"""("(?:\\.|[^"\\\n])*+\\?(?:"|\n|\Z)|'(?:\\.|[^'\\\n])*+\\?(?:'|\n|\Z))|//[^\n]*|/\*.*?(?:\*/|\Z)""",
    re.DOTALL,
)
_OWN: Final = "google/protobuf/"


def descriptors_of(name: str, read: ReadFile) -> bytes | None:
    """Return a serialized FileDescriptorSet of the file and what it imports; None if a file is missing: reported.

    Raise OptionError.
    """
    if find_spec("grpc_tools") is None:
        hint = "pip install 'iggyflux[protoc]', or make a `descriptor` with protoc"
        raise OptionError("a .proto file needs a compiler", "proto", code=NO_COMPILER, hint=hint)
    folder, main = posixpath.split(name.replace("\\", "/"))
    files: dict[str, bytes] = {}
    waiting = [main]
    while waiting:
        each = waiting.pop()
        if each in files or each.startswith(_OWN):
            continue
        if posixpath.normpath(each) != each or each.startswith(("/", "..")) or ":" in each or len(files) >= _MOST_FILES:
            hint = "write the path from the folder of the .proto file"
            raise OptionError(f"cannot follow the import of {each!r}", "proto", code=BAD_SCHEMA, hint=hint)
        content = read(posixpath.join(folder, each), "proto")
        if content is None:
            return None
        files[each] = content
        waiting += _imports(content)
    return _compiled(main, tuple(sorted(files.items())))


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
