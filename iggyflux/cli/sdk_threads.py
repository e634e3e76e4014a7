"""How many threads the SDK of Iggy runs on: one, as its answers become Python objects one after the other anyway.

By default it starts one for each processor.  They wake each other for each answer, and wait for the lock of the
interpreter together.
"""

from __future__ import annotations

import os


def run_sdk_on_one_thread() -> None:
    """Set the number of threads, unless the environment does; to be called before the first connection."""
    os.environ.setdefault("TOKIO_WORKER_THREADS", "1")
