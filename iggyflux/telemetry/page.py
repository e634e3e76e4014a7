"""The files of the page at `/`: the same for every run and every request, so that they need no token.

What they show they ask of `/status`, with the token that a person gave.  Nothing comes from elsewhere, and nothing
that is written in the page runs.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "static"
_SCRIPT: Final = "text/javascript; charset=utf-8"
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", _SCRIPT),
    "/history.js": ("history.js", _SCRIPT),
    "/plot.js": ("plot.js", _SCRIPT),
    "/dom.js": ("dom.js", _SCRIPT),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""By path: the name of the file, and its content type."""
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


@cache
def content(path: str) -> bytes:
    """Return the content of the file at a path of `FILES`."""
    return (_FOLDER / FILES[path][0]).read_bytes()
