"""The three InfluxDB APIs that the simulator speaks, one file each, over one store."""

from __future__ import annotations
