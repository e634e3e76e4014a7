"""The fixture `server` for tests that kill an Iggy: import `killable_server`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from iggy_server import IggyServer, find_server
from required_servers import not_found


@pytest.fixture(name="server")
def killable_server(tmp_path: Path) -> Iterator[IggyServer]:
    """A server that may be killed."""
    found = find_server(tmp_path)
    if isinstance(found, str):
        not_found("iggy", found)
    yield found
    found.close()
