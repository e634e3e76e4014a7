"""A run that sends its traces and metrics to OpenTelemetry, where the environment asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from iggyflux.errors import PipelineError, Problem
from iggyflux.telemetry.otel_settings import exports_of
from iggyflux.telemetry.tracing import NO_TRACING, Tracing

MOST_FLUSH_SECONDS: Final = 3.0
"""How long the end of a run waits for a collector at most."""


@contextmanager
def exporting(
    status: Callable[[], Any], *, propagates: bool, shutdown_seconds: float, environ: Mapping[str, str] = os.environ
) -> Iterator[Tracing]:
    """Export inside the block; `status` returns the status as JSON.  Without the variables nothing is imported.

    Raise `PipelineError`: IFX824 if a package is missing, IFX823 for a variable that cannot be used.
    """
    exports = exports_of(environ)
    if not exports:
        yield NO_TRACING
        return
    try:
        from iggyflux.telemetry.otel_export import exporting_to
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        message = "the variables OTEL_ ask for traces or metrics, and OpenTelemetry is not installed"
        hint = "pip install 'iggyflux[otel]', or set OTEL_SDK_DISABLED=true"
        raise PipelineError([Problem("IFX824", message, hint=hint)]) from error
    seconds = min(MOST_FLUSH_SECONDS, shutdown_seconds)
    with exporting_to(exports, status, environ, propagates=propagates, seconds=seconds) as tracing:
        yield tracing
