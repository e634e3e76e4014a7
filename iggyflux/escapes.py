"""Characters that a terminal, a log viewer or an editor acts on, written as escapes.

Messages, documents, file names and answers of servers can hold them: ESC begins a command of a terminal, a line feed
forges a line of a log, and a bidi override shows a text in another order.  Every text for people passes `escaped`, and
every JSON text `json_escaped`, when it leaves the process.
"""

from __future__ import annotations

import json
import re
from typing import Any

UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters but the tab, line separators, bidi controls, lone surrogates, noncharacters that XML lacks."""
_UNSAFE_IN_LINES = re.compile(UNSAFE.pattern.replace("\x0a-", "\x0b-"))
_UNSAFE_IN_JSON = re.compile(UNSAFE.pattern.replace("\x00-\x08\x0a-\x1f", ""))


def escaped(text: str) -> str:
    r"""Return `text` on one line, with unsafe characters as escapes such as `\x1b` and `\u202e`."""
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def escaped_lines(text: str) -> str:
    """Return `text` as `escaped` does, but with its line feeds."""
    return _UNSAFE_IN_LINES.sub(lambda match: escaped(match[0]), text)


def json_escaped(text: str) -> str:
    r"""Return a JSON text of the same meaning, with unsafe characters as escapes such as `\u001b`."""
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def json_text(value: Any, *, indent: bool = False) -> str:
    """Return `value` as JSON without unsafe characters.  What JSON does not know is written as its text."""
    options: dict[str, Any] = {"indent": 2} if indent else {"separators": (",", ":")}
    return json_escaped(json.dumps(value, ensure_ascii=False, default=str, **options))
