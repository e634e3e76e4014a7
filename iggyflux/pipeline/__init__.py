"""A pipeline file as frozen types: where messages come from, where lines go, and which mappings run between.

Connections and secrets are configured here and never in a mapping.  This package connects to nothing.  No secret is
ever printed: a `Secret` shows itself as `***`, and what a problem quotes is masked.
"""

from __future__ import annotations

from iggyflux.pipeline.load import load_pipeline, parse_pipeline
from iggyflux.pipeline.types import (
    Consumer,
    Endpoint,
    EndpointKind,
    IggySettings,
    InfluxSettings,
    Pipeline,
    RegistrySettings,
    Retention,
    RouteSettings,
    Start,
    TelemetrySettings,
    TopicAddress,
)
from iggyflux.secrets import Secret

__all__ = [
    "Consumer",
    "Endpoint",
    "EndpointKind",
    "IggySettings",
    "InfluxSettings",
    "Pipeline",
    "RegistrySettings",
    "Retention",
    "RouteSettings",
    "Secret",
    "Start",
    "TelemetrySettings",
    "TopicAddress",
    "load_pipeline",
    "parse_pipeline",
]
