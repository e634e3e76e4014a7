"""SQL of InfluxDB 3: the statements of our own reader are answered here, any other by DataFusion in `sql_engine`.

Without ORDER BY rows come in no useful order, and among rows of one time in none at all: nobody may rely on either.
"""

from __future__ import annotations

from collections.abc import Mapping

from iggyflux.sim.queries.sql_engine import run_statement
from iggyflux.sim.queries.sql_reads import parse_read, run_read
from iggyflux.sim.queries.sql_tables import POISONED, Answer, valid_fields
from iggyflux.sim.store import Database, Store

__all__ = ["POISONED", "run", "valid_fields"]


def run(store: Store, database: Database, text: str, parameters: Mapping[str, object]) -> Answer:
    """Return the columns and rows of a statement.  Raises `QueryError`, before the first row where it can."""
    read = None if parameters else parse_read(text)
    if read is not None:
        return run_read(store, database, read)
    return run_statement(store, database, text, parameters)
