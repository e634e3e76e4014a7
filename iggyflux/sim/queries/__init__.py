"""The query languages of the simulator: enough of InfluxQL, SQL and Flux to read back what was written.

Each language has a parser, which knows nothing of the store, and an evaluation, which knows nothing of HTTP.
"""

from __future__ import annotations


class QueryError(Exception):
    """A statement that cannot be parsed, is not known to the simulator, or fails; the dialect words the answer."""


class ParseError(QueryError):
    """A statement that is not of the language, or beyond what the simulator knows of it."""


class Unsupported(ParseError):
    """A part of a language that real servers know and the simulator does not; `what` is that part."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported by the simulator")


class NotFound(QueryError):
    """A database, bucket or table that is not there; `name` is its name."""

    def __init__(self, message: str, name: str) -> None:
        self.name = name
        super().__init__(message)
