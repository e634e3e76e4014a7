"""A run keeps the SDK of Iggy on one thread, unless the environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import asyncio, sys
from contextlib import suppress
from pathlib import Path
from iggyflux.cli.sdk_threads import run_sdk_on_one_thread
run_sdk_on_one_thread()
import apache_iggy
async def main():
    with suppress(RuntimeError):  # nothing listens there
        await apache_iggy.IggyClient("127.0.0.1:1").login_user("a", "b")
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    print(sum(name.startswith("tokio") for name in names), flush=True)
    import os; os._exit(0)
asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_sdk_has_one_thread_unless_the_environment_says_otherwise() -> None:
    def count(**given: str) -> int:
        environ = {name: value for name, value in os.environ.items() if name != "TOKIO_WORKER_THREADS"}
        command = [sys.executable, "-c", COUNT]
        return int(subprocess.run(command, capture_output=True, check=True, text=True, env=environ | given).stdout)

    alone = count()

    assert count(TOKIO_WORKER_THREADS="7") == alone + 6
