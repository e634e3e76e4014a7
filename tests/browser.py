"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 60_000
"""No test waits so long for what it expects, except on a machine that is busy."""


@contextmanager
def launched(what: str) -> Iterator[Browser]:
    """Yield a browser; skip the test if there is none, and say that `what` is not tried."""
    if CHROMIUM is None:
        pytest.skip(f"Chromium is not installed: {what} is not tried in a browser")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()
