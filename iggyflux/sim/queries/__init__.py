"""The query languages of the simulator: enough of InfluxQL, SQL and Flux to read back what was written.

Each language has a parser, which does not know the store, and an evaluation, which does not know HTTP.
"""

from __future__ import annotations


class QueryError(Exception):
    """A statement that cannot be parsed, is not supported, or fails; the dialect words the response."""


class ParseError(QueryError):
    """A statement that is not valid in the language, or not supported by the simulator."""


class Unsupported(ParseError):
    """A part of a language that real servers support and the simulator does not; `what` is that part."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported by the simulator")


class NotFound(QueryError):
    """A missing database, bucket or table; `name` is its name."""

    def __init__(self, message: str, name: str) -> None:
        self.name = name
        super().__init__(message)
