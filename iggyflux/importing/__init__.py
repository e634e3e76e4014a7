"""Configurations of other tools as documents of iggyflux, with a report of what became of each construct.

Each format is one module with a function that reads a configuration and returns `Documents`; a new format is a line in
`FORMATS`.  Nothing here reads or writes files.  Converters never copy secrets: these become variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final

from iggyflux.errors import DocumentError
from iggyflux.importing.configuration import Configuration
from iggyflux.importing.draft import Draft, Tree, prove, prove_pipeline
from iggyflux.importing.influxdb import lacking, with_address
from iggyflux.importing.report import Line, Report, Verdict
from iggyflux.records import Message

__all__ = ["FORMATS", "Documents", "Format", "Imported", "Line", "Options", "Report", "Verdict", "convert"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a configuration cannot say: where messages are in Iggy, and what they look like."""

    stream: str | None = None
    topic: str | None = None
    topic_header: str = "topic"
    """The header that has the topic of the broker from which a message came."""
    samples: Sequence[Message] = ()


@dataclass
class Documents:
    """What a converter makes: mappings, and a pipeline that runs all of them."""

    report: Report
    drafts: list[Draft] = field(default_factory=list)
    pipeline: Tree = field(default_factory=dict)
    """Everything but `run`, which has a route for each mapping."""
    comments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be converted, in the module of its name with a function `convert`."""

    module: str
    form: str
    """yaml, toml, or text that the module reads itself."""
    what: str
    reads: str
    """What each mapping is made of."""
    function: str = "convert"
    expands: bool = False
    """Whether the tool replaces `$NAME` in its file by variables."""


FORMATS: Final[dict[str, Format]] = {
    "iggy-influxdb-sink": Format(
        "connectors", "toml", "the connector influxdb_sink of Apache Iggy", "`[[streams]]`", "convert_sink"
    ),
    "iggy-influxdb-source": Format(
        "connectors", "toml", "the connector influxdb_source of Apache Iggy", "`[[streams]]`", "convert_source"
    ),
    "telegraf": Format("telegraf", "toml", "Telegraf", "`[[inputs.NAME]]` with a `data_format`", expands=True),
    "mqtt2influxdb": Format("mqtt2influxdb", "yaml", "mqtt2influxdb", "`points`"),
    "kcql": Format(
        "kcql", "text", "statements of Lenses' connectors, or the connector's configuration", "`INSERT INTO … SELECT …`"
    ),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """The result: the text of each file by its name, in order, and the report."""

    files: dict[str, str]
    report: Report


def convert(form: str, text: str | bytes, *, file: str | None = None, options: Options | None = None) -> Imported:
    """Return the documents that a configuration of format `form` becomes; without any if none of it can be used.

    Raise DocumentError if the text cannot be read, KeyError for an unknown format.
    """
    chosen = FORMATS[form]
    function: Callable[..., Documents] = getattr(import_module(f"iggyflux.importing.{chosen.module}"), chosen.function)
    if not text.strip():
        return Imported({}, Report())
    source: Any = text
    if chosen.form in ("toml", "yaml"):
        source = Configuration(text, file=file, form=chosen.form, expands=chosen.expands)
    try:
        documents = function(source, options or Options())
    except DocumentError as error:
        named = [replace(each, location=replace(each.location, file=file)) for each in error.problems]
        raise DocumentError(named) from error
    if isinstance(source, Configuration):
        source.close()
    return _written(documents, f"by iggyflux import {form}")


_KEPT_APART: Final = {
    "spread": "`spread: index`: {}; here all are kept",
    "collisions": "`collisions: merge`: {}",
    "examples": "{}",
}


def _written(documents: Documents, origin: str) -> Imported:
    report = documents.report

    def told(name: str) -> Callable[[str, str], None]:
        def tell(place: str, reason: str) -> None:
            became = _KEPT_APART.get(place)
            verdict = Verdict.NOT_TAKEN if became is None else Verdict.APPROXIMATED
            report.add(0, f"{name}, {place}", verdict, reason if became is None else became.format(reason))

        return tell

    files: dict[str, str] = {}
    routes: list[Tree] = []
    for draft in documents.drafts:
        name = _free(f"{draft.name}.yaml", files)
        draft.notes.insert(0, f"Written {origin}. `iggyflux test {name}` runs the examples.")
        text = prove(draft, told(name))
        if text is not None:
            files[name] = text
            routes += _routes(name, draft)
    if files:
        tree = {"iggyflux": 1, **documents.pipeline, "run": routes}
        notes = [f"Written {origin}. `iggyflux check pipeline.yaml` connects to both ends, and says what is missing."]
        tell = told("pipeline.yaml")
        text = prove_pipeline(tree, documents.comments, notes, tell)
        has_addresses = all("url" in route.get("influxdb", {}) for route in routes)
        if text is not None and not has_addresses and "url" not in tree.get("influxdb", {}):
            tree["influxdb"] = with_address(tree.get("influxdb", {}))
            became = "no address of InfluxDB: complete `influxdb` of the pipeline"
            report.add(0, "pipeline.yaml, influxdb", Verdict.APPROXIMATED, became)
            text = prove_pipeline(tree, documents.comments, notes, tell)
        if text is not None:
            files["pipeline.yaml"] = text
            for reason in dict.fromkeys(each for route in routes for each in lacking(tree.get("influxdb", {}), route)):
                tell("influxdb", reason)
    return Imported(files, report)


def _routes(name: str, draft: Draft) -> Iterator[Tree]:
    """Yield the routes of a mapping; those to several sinks have consumers of their own, so that each reads all."""
    if not draft.sinks:
        yield {"mapping": name, **draft.route}
    for number, sink in draft.sinks:
        route = f"{name.removesuffix('.yaml')}-{number}"
        yield {"mapping": name, "name": route, **draft.route, "consumer": {"group": route}, "influxdb": dict(sink)}


def _free(name: str, taken: dict[str, str]) -> str:
    stem = name.removesuffix(".yaml")
    number = 1
    while name in taken or name == "pipeline.yaml":
        number += 1
        name = f"{stem}-{number}.yaml"
    return name
