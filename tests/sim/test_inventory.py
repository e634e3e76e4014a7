"""What users of the simulator rely on: endpoints, faults and the Python API, as recorded once.

A removed name, or one with another signature, is a change that users see: it belongs into CHANGELOG.md too.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

from iggyflux import sim
from iggyflux.sim import Chaos, Fault, SimServer
from iggyflux.sim.faults import BODIES, KINDS, TARGETS, WHENS
from tests.sim.client import call

INVENTORY = Path(__file__).parent / "inventory.json"
PATHS = ("/ping", "/status", "/health", "/ready", "/write", "/query", "/api/v1/health", "/api/v2/write")
PATHS += ("/api/v2/query", "/api/v2/buckets", "/api/v2/orgs", "/api/v2/dbrps", "/api/v3/write_lp", "/api/v3/query_sql")
PATHS += ("/api/v3/query_influxql", "/api/v3/configure/database", "/api/v2/setup", "/nothing")
METHODS = ("GET", "POST", "DELETE", "OPTIONS")
ADMIN = ("stats", "requests", "dump", "faults", "reset", "nothing")


def found() -> dict[str, object]:
    """Return the inventory of this checkout."""
    return {
        "names": sorted(sim.__all__),
        "server": {
            name: str(inspect.signature(member)) if callable(member) else "property"
            for name, member in sorted(vars(SimServer).items())
            if (not name.startswith("_") or name == "__init__") and name not in ("settings", "store", "faults")
        },
        "fault": {each.name: repr(each.default) for each in fields(Fault) if each.name not in ("headers", "kind")},
        "chaos": {each.name: repr(each.default) for each in fields(Chaos)},
        "kinds": {kind: sorted(keys) for kind, (_, keys) in KINDS.items()},
        "words": {"when": WHENS, "body": BODIES, "on": TARGETS},
        "endpoints": {str(dialect): endpoints(dialect) for dialect in (1, 2, 3)},
        "admin": admin(),
    }


def endpoints(dialect: int) -> dict[str, dict[str, int]]:
    """Return the status of each empty request."""
    with SimServer(dialect) as server:
        return {path: {method: call(server, method, path).status for method in METHODS} for path in PATHS}


def admin() -> dict[str, dict[str, int]]:
    with SimServer(2) as server:
        return {
            name: {method: call(server, method, f"/__sim__/{name}").status for method in ("GET", "DELETE")}
            for name in ADMIN
        } | {
            "POST": {
                "faults": call(server, "POST", "/__sim__/faults", '{"kind": "duplicate"}').status,
                "reset": call(server, "POST", "/__sim__/reset").status,
                "down": call(server, "POST", "/__sim__/down", '{"seconds": 0}').status,
            }
        }


def write() -> None:
    """Write the inventory file: `python -m tests.sim.test_inventory`."""
    INVENTORY.write_text(json.dumps(found(), indent=1, sort_keys=True) + "\n")


def test_nothing_of_the_simulator_is_lost() -> None:
    assert json.loads(json.dumps(found())) == json.loads(INVENTORY.read_text())


if __name__ == "__main__":
    write()
