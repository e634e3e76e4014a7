"""What a plan does if its generated code raises an unexpected exception: the reference plan renders the batch.

The guarantee still holds, only more slowly.  The fault is reported with the batch, so that a run counts and logs it,
and `check` and the tests fail.
"""

from __future__ import annotations

import traceback
from pathlib import PurePath


def describe_fault(error: Exception) -> str:
    """Return the type of `error` and where it was raised, but never its text, which may quote a payload."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    place = "generated code" if last.filename.startswith("<") else PurePath(last.filename).name
    return f"{type(error).__name__} in line {last.lineno} of {place}"
