"""A run keeps the memory that it frees for the next batch, where glibc is the C library."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREE_AND_TAKE = """
import resource, sys
from iggyflux.cli.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    [bytearray(130_000 + step * 1_000) for step in range(12)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc is not the C library")
def test_buffers_of_a_batch_are_not_given_back_to_the_system() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FREE_AND_TAKE, how], capture_output=True, check=True, text=True)
        return int(done.stdout)

    assert faults("keep") < 2_000
