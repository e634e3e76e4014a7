"""Nothing that users rely on changes by accident."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from tests.inventory import FILE, collect, main

KNOWN = json.loads(FILE.read_text("utf-8"))


@cache
def collected() -> Any:
    return json.loads(json.dumps(collect()))


@pytest.mark.parametrize("part", sorted(KNOWN))
def test_the_inventory_is_what_it_was(part: str, update_cases: bool) -> None:
    """Commands, names, codes, events, keys and formats; message ids byte for byte, since consumers keep them."""
    if update_cases:
        main()
    expected = json.loads(FILE.read_text("utf-8"))[part]

    assert collected()[part] == expected
