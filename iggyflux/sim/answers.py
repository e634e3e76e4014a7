"""What a server of each version would answer to lines, asked of the simulator's core without a socket."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iggyflux.sim.core import Core
from iggyflux.sim.dialects.base import Settings
from iggyflux.sim.exchange import Body, HttpResponse, request_of
from iggyflux.sim.server import DIALECTS
from iggyflux.sim.store import Store

_DATABASE: Final = "playground"
WRITES: Final = {
    1: f"/write?db={_DATABASE}&precision=ns",
    2: f"/api/v2/write?org=org&bucket={_DATABASE}&precision=ns",
    3: f"/api/v3/write_lp?db={_DATABASE}&precision=nanosecond",
}
"""The request of each version that writes lines."""


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """An answer to a write: the server's version, the status, the text of the body, and what is stored after it."""

    version: str
    status: int
    body: str
    points: int


def answer_write(dialect: int, lines: Sequence[str]) -> WriteAnswer:
    """Return what an empty server of `dialect` (1, 2 or 3) answers to one request with `lines`."""
    kind, version = DIALECTS[dialect]
    settings = Settings(version=version, database=_DATABASE, org="org", now_ns=time.time_ns)
    store = Store(None)
    try:
        if dialect != 3:  # 3.x creates it
            store.create_database(_DATABASE, duration_ns=0)
        core = Core(kind, store, settings)
        body = Body.of("\n".join(lines).encode("utf-8", "surrogatepass"))
        answer = core.finish(core.begin(request_of("POST", WRITES[dialect], {}, body)))
        if not isinstance(answer, HttpResponse):
            return WriteAnswer(version, 0, "the connection breaks off", store.count())
        content = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
        return WriteAnswer(version, answer.status, content.decode("utf-8", "replace").strip(), store.count())
    finally:
        store.close()
