"""A process that answers one SQL statement by DataFusion, started by `sql_engine`.  It imports nothing of iggyflux.

Standard input is a line of JSON and an Arrow stream for each table, standard output an Arrow stream or a JSON error.
The statement reads only the tables sent with it: no DDL, no DML, no other statements, no spill files.  A pool bounds
the memory that the engine counts, a limit of the process the memory that it does not.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys

import datafusion
import pyarrow as pa

POOL_BYTES = 256 * 2**20
PROCESS_BYTES = 3 * 2**30
ANSWER_BYTES = 256 * 2**20


def main() -> None:
    for limit, number in ((resource.RLIMIT_AS, PROCESS_BYTES), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # not every system has such limits
            resource.setrlimit(limit, (number, number))
    given = json.loads(sys.stdin.buffer.readline())
    context = make_context()
    for name in given["tables"]:
        with pa.ipc.open_stream(sys.stdin.buffer) as reader:
            context.register_record_batches('"' + name.replace('"', '""') + '"', [[*reader]])
    try:
        answer = run(context, given["statement"], given["parameters"])
    except Exception as error:  # the bindings raise ValueError, RuntimeError and Exception itself
        answer = json.dumps({"error": str(error) or type(error).__name__}).encode()
    sys.stdout.buffer.write(answer)


def make_context() -> datafusion.SessionContext:
    """Return a context without write access, with InfluxDB 3's names of catalog and schema."""
    environment = datafusion.RuntimeEnvBuilder().with_disk_manager_disabled().with_fair_spill_pool(POOL_BYTES)
    settings = datafusion.SessionConfig().with_default_catalog_and_schema("public", "iox").with_target_partitions(1)
    return datafusion.SessionContext(settings, environment)


def run(context: datafusion.SessionContext, statement: str, parameters: dict[str, object]) -> bytes:
    """Return the rows of a statement as an Arrow stream."""
    allowed = datafusion.SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
    frame = context.sql_with_options(statement, allowed, param_values=parameters)
    batches: list[pa.RecordBatch] = []
    size = 0
    for each in frame.execute_stream():
        batch = each.to_pyarrow()
        batches.append(batch)
        size += batch.nbytes
        if size > ANSWER_BYTES:
            raise ValueError(f"Resources exhausted: the answer is larger than {ANSWER_BYTES:,} bytes")
    out = io.BytesIO()
    with pa.ipc.new_stream(out, batches[0].schema if batches else frame.schema()) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return out.getvalue()


if __name__ == "__main__":
    main()
