"""SQL of InfluxDB 3: the reader's own statements are answered here, all others by DataFusion in `sql_engine`.

Without ORDER BY rows have no useful order, and rows of one time never have one: a client must not rely on either.
"""

from __future__ import annotations

from collections.abc import Mapping

from iggyflux.sim.queries.sql_engine import run_statement
from iggyflux.sim.queries.sql_reads import parse_read, run_read
from iggyflux.sim.queries.sql_tables import POISONED, SqlRows, valid_fields
from iggyflux.sim.store import Database, Store

__all__ = ["POISONED", "run", "valid_fields"]


def run(store: Store, database: Database, text: str, parameters: Mapping[str, object]) -> SqlRows:
    """Return the columns and rows of a statement.  Raise `QueryError`, before the first row if possible."""
    read = None if parameters else parse_read(text)
    if read is not None:
        return run_read(store, database, read)
    return run_statement(store, database, text, parameters)
