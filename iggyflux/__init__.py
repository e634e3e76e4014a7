"""iggyflux: declarative ETL between Apache Iggy and InfluxDB.

The names in `__all__` are the public interface and stay stable.  Each is imported on first use, so that `import
iggyflux` is fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes longer than the rest of this file
if TYPE_CHECKING:
    from typing import Any

    from iggyflux.errors import (
        DecodeError,
        DocumentError,
        EvaluationError,
        ExpressionError,
        IggyfluxError,
        LineProtocolError,
        Location,
        MappingError,
        PipelineError,
        PointError,
        Problem,
        RecordError,
    )
    from iggyflux.expressions import Expression, compile_expression
    from iggyflux.lineprotocol import Dialect, Point, Precision, Unsigned, parse_lines
    from iggyflux.mapping import Mapping, ReaderMapping, WriterMapping, load_mapping, parse_mapping
    from iggyflux.records import Failure, Message, OutgoingMessage, Rendered, RenderedMessages, Row

__version__ = "0.1.0"

__all__ = [
    "DecodeError",
    "Dialect",
    "DocumentError",
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "Failure",
    "IggyfluxError",
    "LineProtocolError",
    "Location",
    "Mapping",
    "MappingError",
    "Message",
    "OutgoingMessage",
    "PipelineError",
    "Point",
    "PointError",
    "Precision",
    "Problem",
    "ReaderMapping",
    "RecordError",
    "Rendered",
    "RenderedMessages",
    "Row",
    "Unsigned",
    "WriterMapping",
    "__version__",
    "compile_expression",
    "load_mapping",
    "parse_lines",
    "parse_mapping",
]

_MODULES = {
    "errors": (
        "DecodeError DocumentError EvaluationError ExpressionError IggyfluxError LineProtocolError Location"
        " MappingError PipelineError PointError Problem RecordError"
    ),
    "expressions": "Expression compile_expression",
    "lineprotocol": "Dialect Point Precision Unsigned parse_lines",
    "mapping": "Mapping ReaderMapping WriterMapping load_mapping parse_mapping",
    "records": "Failure Message OutgoingMessage Rendered RenderedMessages Row",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'iggyflux' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"iggyflux.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
