"""What OpenTelemetry's variables ask for, running: exporters in threads of the SDK, and one warning where they fail.

The run never waits for a collector.  Spans wait in a queue that is bounded (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048), and
those for which there is no room are dropped; metrics have no queue, since the next ones hold the sums of all.  At the
end what is left is sent for a bounded time.  The SDK's own log is not shown, since it quotes addresses and headers: its
warnings are logged once each, without their values.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from iggyflux import __version__
from iggyflux.errors import PipelineError, Problem
from iggyflux.telemetry.metrics import Tree
from iggyflux.telemetry.otel_metrics import MetricSender
from iggyflux.telemetry.otel_settings import HTTP, Export, Signal, milliseconds_of
from iggyflux.telemetry.otel_traces import OtelTracing
from iggyflux.telemetry.tracing import NO_TRACING, Tracing

log = logging.getLogger("iggyflux.telemetry")

_SCOPE: Final = "iggyflux"
_MODULES: Final = {HTTP: "opentelemetry.exporter.otlp.proto.http", "grpc": "opentelemetry.exporter.otlp.proto.grpc"}
_EXPORTERS: Final[Mapping[Signal, tuple[str, str]]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
}
_HINT: Final = "check the OTEL_EXPORTER_OTLP_ variables and the collector; the run goes on without it"


@contextmanager
def exporting_to(
    exports: Sequence[Export],
    status: Callable[[], Tree],
    environ: Mapping[str, str],
    *,
    propagates: bool,
    seconds: float,
) -> Iterator[Tracing]:
    """Export inside the block what the routes tell and what `status` returns; then send what is left for `seconds`.

    Raise `PipelineError` (IFX824, IFX823) if an exporter cannot be made.
    """
    give_back = _take_log()
    ends: list[Callable[[], None]] = []
    try:
        resource, scope = Resource.create(_about(environ)), InstrumentationScope(_SCOPE, __version__)
        every = milliseconds_of(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for export in exports:
            exporter = _watched(_made(export), export.signal)
            if export.signal == "metrics":
                ends.append(MetricSender(exporter, status, resource, scope, every).shutdown)
            else:
                provider.add_span_processor(processor := BatchSpanProcessor(exporter))
                ends.append(processor.shutdown)
        tracer = provider.get_tracer(_SCOPE, __version__)
        has_traces = any(export.signal == "traces" for export in exports)
        yield OtelTracing(tracer, propagates=propagates) if has_traces else NO_TRACING
    finally:
        if _call_all(ends, seconds):
            give_back()  # else what still tries may log a moment before the process ends


def _call_all(ends: Sequence[Callable[[], None]], seconds: float) -> bool:
    """Call all of `ends` side by side; return after `seconds` at the latest, and whether all have ended."""
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=end, daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in threads)


def _watched(exporter: Any, signal: Signal) -> Any:
    """Return the exporter; it logs once that it fails, and once that it succeeds again."""
    export, fails = exporter.export, False

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal fails
        try:
            result = export(*args, **kwargs)
        except Exception:  # whatever an exporter raises: the next one may succeed
            result = None
        if (getattr(result, "name", "") != "SUCCESS") != fails:
            fails = not fails
            if fails:
                log.warning("otel.not_exported signal=%s hint=%r", signal, _HINT)
            else:
                log.info("otel.exported signal=%s", signal)
        return result

    exporter.export = watched
    return exporter


class _Once(logging.Handler):
    """Logs each warning of the SDK once, as it is written in its code: without values."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: set[object] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("opentelemetry.exporter") and record.msg not in self._told:
            self._told.add(record.msg)
            log.warning("otel.warning source=%s text=%r", record.name, str(record.msg))


def _take_log() -> Callable[[], None]:
    """Keep the log of the SDK to ourselves; return what gives it back."""
    foreign, handler = logging.getLogger("opentelemetry"), _Once()
    before, foreign.propagate = foreign.propagate, False
    foreign.addHandler(handler)

    def give_back() -> None:
        foreign.removeHandler(handler)
        foreign.propagate = before

    return give_back


def _about(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what names this program; the name of the service is the operator's, if one is given."""
    given = environ.get("OTEL_SERVICE_NAME", "") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {"service.version": __version__, **({} if given else {"service.name": "iggyflux"})}


def _made(export: Export) -> Any:
    """Return the exporter of a signal.  Raise `PipelineError`."""
    if export.exporter == "console":
        return ConsoleSpanExporter() if export.signal == "traces" else ConsoleMetricExporter()
    module, name = _EXPORTERS[export.signal]
    path = f"{_MODULES[export.protocol]}.{module}"
    try:
        found = getattr(import_module(path), name)
    except ImportError as error:
        package = _MODULES[export.protocol].replace(".", "-")
        hint = f"pip install {package}, or set the protocol to {HTTP}"
        message = f"OTEL_EXPORTER_OTLP_PROTOCOL is {export.protocol}, and the package for it is not installed"
        raise PipelineError([Problem("IFX824", message, hint=hint)]) from error
    try:
        return found()
    except Exception as error:  # what the exporters raise for variables that they cannot use is not documented
        message = f"the variables OTEL_EXPORTER_OTLP_ cannot be used for {export.signal}: {type(error).__name__}"
        raise PipelineError([Problem("IFX823", message, hint="check addresses, headers, timeouts and files")]) from None
