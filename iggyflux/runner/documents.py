"""The documents of a run on disk: what may change while it runs, and what needs a restart (IFX830).

| changes                                                   | live | because                                          |
|-----------------------------------------------------------|------|--------------------------------------------------|
| a mapping, but for the keys below                         | yes  | it decides what is rendered, and nothing else    |
| which file is the mapping of a route                      | yes  | the same                                         |
| `name`, stream and topic of a writer's `from`, a reader's | no   | positions belong to them                         |
| `from`, `cursor` and `for_each` of `messages`             |      |                                                  |
| `limits`, a reader's `to`                                 | no   | known series and open topics belong to them      |
| everything else of the pipeline: ends, servers, settings, | no   | connections and folders are made of it           |
| routes added or removed                                   |      |                                                  |
| secrets, in the environment and in files                  | no   | they are read at the start                       |
| the mapping of a route that reads stdin                   | no   | what is abandoned could not be read again        |

One document that is not good refuses all of them: what runs is always one state of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeAlias

from iggyflux.disk import seen_from_outside
from iggyflux.documents import join_pointer, read_document, read_source
from iggyflux.errors import DocumentError, MappingError, PipelineError, Problem
from iggyflux.mapping import Reader, Writer
from iggyflux.pipeline import Pipeline, load_pipeline
from iggyflux.records import JSON
from iggyflux.runner.build import changed_reader, changed_writer
from iggyflux.runner.open import PreparedRoute, prepare_routes
from iggyflux.runner.reload import Current
from iggyflux.runner.setup import AnySetup, WriterSetup

Check: TypeAlias = Callable[[Sequence[AnySetup]], Sequence[Problem]]
"""Returns what examples and contracts say of routes; errors refuse the change."""

_RESTART: Final = "restart the run to change it, or undo the change"
_FIXED_OF_WRITER: Final[dict[str, Callable[[Writer], object]]] = {
    "name": lambda writer: writer.name,
    "from/stream": lambda writer: writer.source.stream,
    "from/topic": lambda writer: writer.source.topics,
    "limits": lambda writer: writer.limits,
    "to": lambda writer: writer.chooses_bucket,
}
_FIXED_OF_READER: Final[dict[str, Callable[[Reader], object]]] = {
    "name": lambda reader: reader.name,
    "from": lambda reader: reader.source,
    "cursor": lambda reader: reader.cursor,
    "to": lambda reader: reader.target,
    "messages": lambda reader: [spec.for_each for spec in reader.messages],
}


class PipelineDocuments:
    """The pipeline of a run and its mappings, as they were at the start and as they are now."""

    def __init__(self, pipeline: Pipeline, prepared: Sequence[PreparedRoute], check: Check | None) -> None:
        self._pipeline = pipeline
        self._check = check
        self._started = {each.setup.item.pointer: each for each in prepared}
        self._files = _files_of(pipeline)
        self._named = _named_by(prepared)
        self._seen: object = None
        """What was seen of the pipeline file when `_files` was made."""
        self.contents: Mapping[str, str] = {each.setup.name: _content(each.setup) for each in prepared}

    def look(self) -> Sequence[object]:
        """As `Documents.look`; a mapping that a changed pipeline names is one of the files before it is read."""
        path = self._pipeline.path
        if path is not None and (seen := seen_from_outside(path)) != self._seen:
            self._seen = seen
            with suppress(DocumentError):  # `read` says why
                self._files = _files_of(self._pipeline, load_pipeline(path))
        return [seen_from_outside(file) for file in [*self._files, *self._named]]

    def read(self) -> Mapping[str, Current]:
        """As `Documents.read`."""
        pipeline = self._read_pipeline()
        try:
            found = {each.setup.item.pointer: each for each in prepare_routes(pipeline)}
        except MappingError as error:  # a file that a broken mapping names may be what is broken
            self._named = sorted({*self._named, *error.files})
            raise
        routes = [(before, found[pointer]) for pointer, before in self._started.items()]
        problems = [problem for pair in routes for problem in _fixed_problems(*pair)]
        found_by_check = self._check([new.setup for _, new in routes]) if self._check else ()
        problems += [each for each in found_by_check if each.severity == "error"]
        if problems:
            raise MappingError(problems)
        self._pipeline = pipeline
        self._named = _named_by(found.values())
        return {new.setup.name: Current(_content(new.setup), partial(_changed, new.setup)) for _, new in routes}

    def _read_pipeline(self) -> Pipeline:
        """Return the pipeline, the same one if its text is the same.  Raise `DocumentError`."""
        before = self._pipeline
        if before.path is None or before.document is None:
            return before
        try:
            text = read_document(read_source(before.path), file=before.file).text
        except OSError:
            text = ""  # `load_pipeline` says why
        except DocumentError as error:
            raise PipelineError(error.problems) from error
        if text == before.document.text:
            return before
        after = load_pipeline(before.path)
        assert after.document is not None  # noqa: S101  # it was read
        if (pointer := _first_difference(before.document.tree, after.document.tree)) is not None:
            place = after.document.locate(pointer if after.document.node(pointer) else "")
            message = f"`{pointer[1:].replace('/', '.')}` of the pipeline cannot change while it runs"
            raise PipelineError([Problem("IFX830", message, place, hint=_RESTART)])
        return after


def fixed_identity(pipeline: Pipeline, prepared: Sequence[PreparedRoute]) -> str:
    """Return a hash of what needs a restart of the run if it changes: two processes with one of it run the same."""
    tree = None if pipeline.document is None else _without_mappings(pipeline.document.tree)
    routes = [
        (each.setup.item.pointer, each.setup.kind, [of(_spec_of(each.setup)) for of in _fixed_of(each.setup).values()])
        for each in prepared
    ]
    return blake2b(repr((tree, routes)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _without_mappings(tree: JSON) -> JSON:
    routes = tree.get("run") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or not isinstance(routes, list):
        return tree
    found: list[JSON] = [
        {key: value for key, value in each.items() if key != "mapping"} if isinstance(each, dict) else each
        for each in routes
    ]
    return {**tree, "run": found}


def _spec_of(setup: AnySetup) -> Any:
    return setup.writer if isinstance(setup, WriterSetup) else setup.reader


def _fixed_of(setup: AnySetup) -> Mapping[str, Callable[[Any], object]]:
    return _FIXED_OF_WRITER if isinstance(setup, WriterSetup) else _FIXED_OF_READER


def _files_of(*pipelines: Pipeline) -> list[Path]:
    """Return their files in one order: two looks at the same files can be compared."""
    paths = {pipeline.path for pipeline in pipelines if pipeline.path is not None}
    return sorted(paths | {item.mapping for pipeline in pipelines for item in pipeline.routes})


def _named_by(prepared: Iterable[PreparedRoute]) -> list[Path]:
    """Return the files that mappings name."""
    return sorted({path for each in prepared for path in each.setup.mapping.files})


def _content(setup: AnySetup) -> str:
    return setup.mapping.identity()


def _changed(setup: AnySetup, route: Any) -> Any:
    """Return the running route with another mapping."""
    return changed_writer(setup, route) if isinstance(setup, WriterSetup) else changed_reader(setup, route)


def _fixed_problems(before: PreparedRoute, after: PreparedRoute) -> list[Problem]:
    """Return the changes of a mapping that need a restart."""
    old, new = before.setup, after.setup
    document = new.mapping.document
    if old.kind != new.kind:
        return [document.problem("IFX830", "/kind", "a route cannot change its kind while it runs", hint=_RESTART)]
    if before.source.kind == "stdin" and _content(old) != _content(new):
        return [document.problem("IFX830", "", "the mapping of a route that reads stdin cannot change", hint=_RESTART)]
    keys = [key for key, of in _fixed_of(old).items() if of(_spec_of(old)) != of(_spec_of(new))]
    return [
        document.problem(
            "IFX830",
            f"/{key}" if document.node(f"/{key}") else "",
            f"`{key.replace('/', '.')}` cannot change while the route runs",
            hint=_RESTART,
        )
        for key in keys
    ]


def _first_difference(before: JSON, after: JSON, pointer: str = "") -> str | None:
    """Return the place of the first difference of two pipelines that needs a restart."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            place = join_pointer(pointer, key)
            if place.startswith("/run/") and place.count("/") == 3 and key == "mapping":
                continue
            if (key in before) != (key in after):
                return place
            if (found := _first_difference(before[key], after[key], place)) is not None:
                return found
        return None
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        places = (
            _first_difference(*pair, join_pointer(pointer, n)) for n, pair in enumerate(zip(before, after, strict=True))
        )
        return next((place for place in places if place is not None), None)
    return None if type(before) is type(after) and before == after else pointer
