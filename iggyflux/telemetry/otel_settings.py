"""What OpenTelemetry's variables ask of a run.  Pure: an environment in, what is asked or problems out.

| variable                                    | here                                                                |
|---------------------------------------------|---------------------------------------------------------------------|
| `OTEL_SDK_DISABLED`                         | `true`: nothing is sent                                             |
| `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_…`    | `otlp`, `console` or `none`; without it `otlp` if there is an       |
|                                             | endpoint                                                            |
| `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_TRACES_…` | asks for `otlp`; the exporter reads it                              |
| `OTEL_EXPORTER_OTLP_PROTOCOL`, `…_TRACES_…` | `http/protobuf` or `grpc`                                           |
| `OTEL_TRACES_SAMPLER`, `…_ARG`              | checked here: after a mistake the SDK keeps everything              |
| `OTEL_METRIC_EXPORT_INTERVAL`               | milliseconds                                                        |
| `…_METRICS_TEMPORALITY_PREFERENCE`          | `cumulative`, or nothing                                            |

All others are read by the SDK and the exporters.  A run without these variables sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from iggyflux.errors import PipelineError, Problem

Signal: TypeAlias = Literal["traces", "metrics"]
SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics")
HTTP: Final = "http/protobuf"
_EXPORTERS: Final = ("otlp", "console", "none")
_PROTOCOLS: Final = (HTTP, "grpc")
_RATIOS: Final = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS: Final = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off", *_RATIOS)


@dataclass(frozen=True, slots=True)
class Export:
    """A signal, and where it goes."""

    signal: Signal
    exporter: str
    protocol: str = HTTP


def exports_of(environ: Mapping[str, str]) -> list[Export]:
    """Return what the variables ask for; empty if they ask for nothing.  Raise `PipelineError` (IFX823)."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    problems: list[Problem] = []
    found = [export for signal in SIGNALS for export in _exports(environ, signal, problems)]
    if any(export.signal == "traces" for export in found):
        problems += _sampler_problems(environ)
    if any(export.signal == "metrics" for export in found):
        problems += _metrics_problems(environ)
    if problems:
        raise PipelineError(problems)
    return found


def _exports(environ: Mapping[str, str], signal: Signal, problems: list[Problem]) -> Iterator[Export]:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip() for name in environ.get(variable, "").split(",") if name.strip()]
    if not names and any(environ.get(f"OTEL_EXPORTER_OTLP_{each}ENDPOINT") for each in ("", f"{signal.upper()}_")):
        names = ["otlp"]
    for name in dict.fromkeys(names):
        if name not in _EXPORTERS:
            problems.append(_problem(variable, name, f"use one of: {', '.join(_EXPORTERS)}"))
        elif name == "otlp":
            yield Export(signal, name, _protocol(environ, signal, problems))
        elif name != "none":
            yield Export(signal, name)


def _protocol(environ: Mapping[str, str], signal: Signal, problems: list[Problem]) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := environ.get(variable, "").strip():
            if value not in _PROTOCOLS:
                problems.append(_problem(variable, value, f"use {' or '.join(_PROTOCOLS)}"))
            return value
    return HTTP


def _sampler_problems(environ: Mapping[str, str]) -> Iterator[Problem]:
    name, share = environ.get("OTEL_TRACES_SAMPLER", "").strip(), environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if name and name not in _SAMPLERS:
        yield _problem("OTEL_TRACES_SAMPLER", name, f"use one of: {', '.join(_SAMPLERS)}")
    if name in _RATIOS and share and not _is_share(share):
        yield _problem("OTEL_TRACES_SAMPLER_ARG", share, "use a number from 0 to 1, such as 0.01")


def _metrics_problems(environ: Mapping[str, str]) -> Iterator[Problem]:
    interval, temporality = "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    if milliseconds_of(environ, interval, 1) <= 0:
        yield _problem(interval, environ[interval], "use a number of milliseconds, such as 60000")
    if environ.get(temporality, "").strip().lower() not in ("", "cumulative"):
        yield _problem(temporality, environ[temporality], "use cumulative, and let the collector make differences")


def milliseconds_of(environ: Mapping[str, str], variable: str, default: int) -> int:
    """Return a time in milliseconds; 0 if it is not a number."""
    text = environ.get(variable, "").strip()
    return int(text) if text.isascii() and text.isdigit() else 0 if text else default


def _is_share(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False


def _problem(variable: str, value: str, hint: str) -> Problem:
    return Problem("IFX823", f"{variable} is {value!r}, which is not known here", hint=hint)
