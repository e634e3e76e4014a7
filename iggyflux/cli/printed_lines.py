"""Lines as commands print them: where points choose their bucket, a comment names it before the first of its lines."""

from __future__ import annotations

from collections.abc import Iterable


class PrintedLines:
    """Makes the text of lines; the last bucket that was named is kept from batch to batch."""

    def __init__(self) -> None:
        self._bucket: str | None = None

    def text(self, lines: Iterable[tuple[str | None, str]]) -> str:
        """Return the text of lines, each with its bucket: "" is the one of the pipeline; None if no bucket is named."""
        parts: list[str] = []
        for bucket, line in lines:
            if bucket is not None and bucket != self._bucket:
                self._bucket = bucket
                parts.append(f"# bucket: {bucket}\n" if bucket else "# bucket: the one of the pipeline\n")
            parts.append(f"{line}\n")
        return "".join(parts)
