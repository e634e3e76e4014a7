"""Faults of an InfluxDB after which the same lines are sent again, in whole or in parts."""

from __future__ import annotations

from typing import Any

PASSING: list[dict[str, Any]] = [
    *({"kind": "status", "status": status} for status in (408, 425, 429, 500, 502, 503, 504, 507)),
    *({"kind": "status", "status": status, "stored": True} for status in (408, 429, 500, 503, 504)),
    *({"kind": "status", "status": status, "body": "html"} for status in (500, 502, 503, 504)),
    *({"kind": "status", "status": status, "body": "empty"} for status in (429, 500, 503)),
    {"kind": "status", "status": 429, "retry_after": 0.2},
    {"kind": "status", "status": 503, "retry_after": 1, "retry_after_form": "date"},
    {"kind": "status", "status": 413},
    {"kind": "status", "status": 413, "early": True},
    {"kind": "status", "status": 500, "text": "max request size (100000 bytes) exceeded", "body": "text"},
    {"kind": "status", "status": 400, "text": "queue length exceeded"},
    {"kind": "status", "status": 500, "text": "engine: cache-max-memory-size exceeded: (1/1)"},
    {"kind": "status", "status": 500, "text": "timeout", "stored": True},
    *({"kind": "reset", "when": when} for when in ("before", "during", "after")),
    {"kind": "reset", "when": "after", "stored": True},
    {"kind": "truncate", "bytes": 5},
    {"kind": "truncate", "bytes": 40},
    {"kind": "drip", "bytes": 5, "seconds": 0.01},
    {"kind": "latency", "seconds": 0.3},
    {"kind": "latency", "seconds": 2.5},
    {"kind": "duplicate"},
    {"kind": "too_large", "bytes": 3000, "times": 3},
    {"kind": "down", "seconds": 0.4},
]
