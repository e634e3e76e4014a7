"""The endpoint that reads and controls a running simulator, as JSON under `/__sim__/`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from iggyflux.sim import export
from iggyflux.sim.core import Core
from iggyflux.sim.exchange import BodyTooLarge, HttpRequest, HttpResponse
from iggyflux.sim.faults import ScenarioError, read_faults, read_scenario

ADMIN = "/__sim__/"
_MAX_BODY = 1_000_000
_KNOWN = "GET stats, requests, dump, faults; POST faults, reset, down; DELETE faults"


class Admin:
    """Handles requests under `ADMIN`; the caller's `down` and `reset` act on the sockets and the store."""

    def __init__(self, core: Core, *, down: Callable[[float], None], reset: Callable[[], None]) -> None:
        self._core = core
        self._down = down
        self._reset = reset

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Return the response: 401 and 403 without a token with all rights, 400 for an invalid body."""
        status = self._core.may_administer(request)
        if status != 200:
            error = "the simulator asks for a token with all rights in the header Authorization"
            return _json(status, {"error": error})
        try:
            body = request.body.read(_MAX_BODY)
            return self._answer(request, request.path[len(ADMIN) :].strip("/"), json.loads(body) if body else None)
        except BodyTooLarge:
            return _json(413, {"error": f"a body has at most {_MAX_BODY:,} bytes"})
        except ScenarioError as error:
            return _json(400, {"error": str(error), "code": error.code})
        except (ValueError, RecursionError) as error:
            return _json(400, {"error": f"the body is not JSON: {error}"})

    def _answer(self, request: HttpRequest, name: str, tree: Any) -> HttpResponse:
        core = self._core
        match request.method, name:
            case "GET", "stats":
                return _json(200, core.stats.as_dict())
            case "GET", "requests":
                return _json(200, [seen._asdict() for seen in core.requests])
            case "GET", "dump":
                lines = export.dump(core.store, request.query.get("db"))
                return HttpResponse(200, {"Content-Type": "text/plain; charset=utf-8"}, _lines(lines))
            case "GET", "faults":
                return _json(200, core.faults.pending())
            case "POST", "faults":
                if isinstance(tree, Mapping) and "kind" not in tree:
                    faults, chaos = read_scenario(tree)
                    core.faults.add(*faults)
                    if chaos is not None:
                        core.faults.unleash(chaos)
                else:
                    core.faults.add(*read_faults(tree))
                return _json(200, core.faults.pending())
            case "DELETE", "faults":
                core.faults.clear()
                return _json(200, [])
            case "POST", "down":
                seconds = _seconds(tree)
                self._down(seconds)
                return _json(200, {"down_for_seconds": seconds})
            case "POST", "reset":
                self._reset()
                return _json(200, core.stats.as_dict())
        return _json(404, {"error": f"the simulator knows under {ADMIN}: {_KNOWN}"})


def _seconds(tree: Any) -> float:
    found = {} if tree is None else tree
    seconds = found.get("seconds", 1) if isinstance(found, Mapping) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ScenarioError("down: expected an object with `seconds`, a number from 0 on")
    return float(seconds)


def _json(status: int, tree: object) -> HttpResponse:
    return HttpResponse(status, {"Content-Type": "application/json"}, (json.dumps(tree) + "\n").encode())


def _lines(lines: list[str]) -> Iterator[bytes]:
    for start in range(0, len(lines), 1_000):
        yield ("\n".join(lines[start : start + 1_000]) + "\n").encode("utf-8", "surrogateescape")
