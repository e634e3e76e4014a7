"""The three InfluxDB APIs of the simulator, one file each, over one store."""

from __future__ import annotations
