"""An InfluxDB simulator on loopback: dialects 1.x, 2.x and 3.x over one store, with faults on demand.

For demos, tests and users' own CI.  Where a real server behaves differently, the simulator is wrong.
"""

from __future__ import annotations

from iggyflux.sim.faults import Chaos, Fault, ScenarioError
from iggyflux.sim.server import SimServer

__all__ = ["Chaos", "Fault", "ScenarioError", "SimServer"]
