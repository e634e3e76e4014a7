"""Events of a run, one line each: text for people, JSON for machines.

An event is a dotted name and fields.  Code outside of the runner logs `"name key=%s"` in the same form; both formatters
format either.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from iggyflux.escapes import escaped, json_escaped


def emit(logger: logging.Logger, level: int, event: str, /, **fields: object) -> None:
    """Log an event; fields that are None are omitted."""
    if logger.isEnabledFor(level):
        given = {key: value for key, value in fields.items() if value is not None}
        text = " ".join([event, *(f"{key}={_shown(value)}" for key, value in given.items())])
        logger.log(level, "%s", text, extra={"event": event, "fields": given})


class TextFormatter(logging.Formatter):
    """`12:00:01 INFO event key=value …`"""

    def format(self, record: logging.LogRecord) -> str:
        return (
            f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname} {escaped(_text(record))}"
        )


class JsonFormatter(logging.Formatter):
    """One JSON object: time (UTC), level, logger, event, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        tree: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        event = getattr(record, "event", None)
        if event is None:
            tree["event"], _, tree["message"] = _text(record).partition(" ")
        else:
            tree |= {"event": event, **getattr(record, "fields", {})}
        return json_escaped(json.dumps(tree, default=str, ensure_ascii=False))


def _text(record: logging.LogRecord) -> str:
    """Return the message, with an exception after it."""
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += f" exception={record.exc_info[1]!r}"
    return text


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in ' "=\n\t' for c in text) else text
