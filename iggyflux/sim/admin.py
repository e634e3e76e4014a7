"""The endpoint through which a running simulator is asked and told, as JSON under `/__sim__/`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from iggyflux.sim.faults import ScenarioError, read_faults, read_scenario
from iggyflux.sim.wire import Answer, Request

if TYPE_CHECKING:
    from iggyflux.sim.server import SimServer

ADMIN = "/__sim__/"


def administer(server: SimServer, request: Request) -> Answer:
    """Do what a request under `ADMIN` asks."""
    name = request.path[len(ADMIN) :].strip("/")
    body = request.body.read()
    try:
        return _known(server, request, name, json.loads(body) if body else None)
    except (json.JSONDecodeError, UnicodeDecodeError) as exc:
        return _json(400, {"error": f"the body is no JSON: {exc}"})
    except ScenarioError as exc:
        return _json(400, {"error": str(exc), "code": exc.code})


def _known(server: SimServer, request: Request, name: str, tree: Any) -> Answer:
    match request.method, name:
        case "GET", "stats":
            return _json(200, server.stats.as_dict())
        case "GET", "requests":
            return _json(200, [seen._asdict() for seen in server.requests])
        case "GET", "dump":
            lines = server.dump(request.query.get("db"))
            return Answer(200, {"Content-Type": "text/plain; charset=utf-8"}, _lines(lines))
        case "GET", "faults":
            return _json(200, server.faults.pending())
        case "POST", "faults":
            if isinstance(tree, Mapping) and "kind" not in tree:
                faults, chaos = read_scenario(tree)
                server.inject(*faults, *([chaos] if chaos else []))
            else:
                server.inject(*read_faults(tree))
            return _json(200, server.faults.pending())
        case "DELETE", "faults":
            server.faults.clear()
            return _json(200, [])
        case "POST", "down":
            seconds = tree.get("seconds", 1) if isinstance(tree, Mapping) else 1
            threading.Timer(0.05, server.down, (float(seconds),)).start()
            return _json(200, {"down_for_seconds": seconds})
        case "POST", "reset":
            server.reset()
            return _json(200, server.stats.as_dict())
    known = "GET stats, requests, dump, faults; POST faults, reset, down; DELETE faults"
    return _json(404, {"error": f"the simulator knows under {ADMIN}: {known}"})


def _json(status: int, tree: object) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, (json.dumps(tree) + "\n").encode())


def _lines(lines: list[str]) -> Iterator[bytes]:
    for start in range(0, len(lines), 1_000):
        yield ("\n".join(lines[start : start + 1_000]) + "\n").encode("utf-8", "surrogateescape")
