"""The language server: the language service for editors, over the Language Server Protocol.

It holds no rules.  It knows which documents are open and where their samples are, and turns offsets into positions.
Documents that are none of iggyflux get no answers, since editors send every YAML file.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from iggyflux import __version__
from iggyflux.authoring.examples import ExampleResult, run_examples
from iggyflux.cli.sample_files import find_samples, samples_beside
from iggyflux.documents import Format, read_document
from iggyflux.editor.checking import check_text
from iggyflux.editor.completion import Completion, completions
from iggyflux.editor.evidence import Samples
from iggyflux.editor.fixes import fix_all
from iggyflux.editor.hover import hover
from iggyflux.editor.outline import Symbol, outline
from iggyflux.editor.positions import Positions
from iggyflux.editor.sample_text import stand_in
from iggyflux.errors import DocumentError, Problem
from iggyflux.mapping import ReaderMapping, WriterMapping, compile_document

_OURS: Final = re.compile(r"^[ \t{]*[\"']?iggyflux[\"']?[ \t]*[:=]", re.MULTILINE)
_QUIET_SECONDS: Final = 0.15
"""How long nothing may be typed until a document is checked."""

_KINDS: Final = {
    "key": types.CompletionItemKind.Property,
    "word": types.CompletionItemKind.EnumMember,
    "function": types.CompletionItemKind.Function,
    "member": types.CompletionItemKind.Field,
    "name": types.CompletionItemKind.Value,
}
_ORDER: Final = ("key", "word", "member", "name", "function")


server = LanguageServer("iggyflux", __version__)
_waiting: dict[str, asyncio.Task[None]] = {}
"""The checks that wait until nothing is typed, by the document's URI."""


class _Open:
    """An open document."""

    def __init__(self, uri: str) -> None:
        document = server.workspace.get_text_document(uri)
        self.uri = uri
        self.version = document.version
        self.path = Path(to_fs_path(uri) or document.filename or "untitled.yaml")
        self.format: Format = "toml" if self.path.suffix == ".toml" or document.language_id == "toml" else "yaml"
        encoding = server.workspace.position_encoding
        name = str(encoding.value if isinstance(encoding, types.PositionEncodingKind) else encoding or "utf-16")
        self.positions = Positions(
            document.source, "utf-8" if name == "utf-8" else "utf-32" if name == "utf-32" else "utf-16"
        )
        self.text = self.positions.plain

    @property
    def is_ours(self) -> bool:
        return _OURS.search(self.text) is not None

    def offset(self, position: types.Position) -> int:
        return self.positions.offset(position.line, position.character)

    def range(self, start: int, end: int) -> types.Range:
        return types.Range(
            types.Position(*self.positions.position(start)), types.Position(*self.positions.position(end))
        )

    def range_of(self, problem: Problem) -> types.Range:
        place = problem.location
        return self.range(*self.positions.span(place.line, place.column, problem.length))

    def samples(self) -> Samples:
        try:
            mapping = compile_document(read_document(self.text, file=str(self.path), format=self.format))
        except DocumentError:
            return self.samples_for(stand_in(self.text))
        return self.samples_for(mapping)

    def samples_for(self, mapping: WriterMapping | ReaderMapping) -> Samples:
        found = find_samples(self.path, self.text)
        return () if found is None else samples_beside(mapping, found)

    def check(self, text: str | None = None) -> Sequence[Problem]:
        checked, _ = check_text(self.text if text is None else text, self.path, self.samples_for, form=self.format)
        return checked.problems


# --- problems ---


@server.feature(types.TEXT_DOCUMENT_DID_OPEN)
def _opened(_: LanguageServer, params: types.DidOpenTextDocumentParams) -> None:
    _publish(params.text_document.uri)


@server.feature(types.TEXT_DOCUMENT_DID_SAVE)
def _saved(_: LanguageServer, params: types.DidSaveTextDocumentParams) -> None:
    _publish(params.text_document.uri)


@server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
async def _changed(_: LanguageServer, params: types.DidChangeTextDocumentParams) -> None:
    uri = params.text_document.uri
    if (waiting := _waiting.pop(uri, None)) is not None:
        waiting.cancel()
    _waiting[uri] = asyncio.create_task(_publish_soon(uri))


@server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
def _closed(_: LanguageServer, params: types.DidCloseTextDocumentParams) -> None:
    uri = params.text_document.uri
    if (waiting := _waiting.pop(uri, None)) is not None:
        waiting.cancel()
    server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri=uri, diagnostics=[]))


async def _publish_soon(uri: str) -> None:
    await asyncio.sleep(_QUIET_SECONDS)
    _waiting.pop(uri, None)
    _publish(uri)


def _publish(uri: str) -> None:
    opened = _Open(uri)
    problems = opened.check() if opened.is_ours else ()
    diagnostics = [_diagnostic(opened, problem) for problem in problems]
    server.text_document_publish_diagnostics(
        types.PublishDiagnosticsParams(uri=uri, diagnostics=diagnostics, version=opened.version)
    )


def _diagnostic(opened: _Open, problem: Problem) -> types.Diagnostic:
    lines = [problem.message]
    named = (("expected", problem.expected), ("found", problem.found), ("hint", problem.hint))
    lines += [f"{label}: {text}" for label, text in named if text]
    severity = types.DiagnosticSeverity.Error if problem.severity == "error" else types.DiagnosticSeverity.Warning
    return types.Diagnostic(opened.range_of(problem), "\n".join(lines), severity, problem.code, source="iggyflux")


# --- what is there, and what could be ---


@server.feature(
    types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=[".", "(", "'", '"', ":", " ", "{", "["])
)
def _complete(_: LanguageServer, params: types.CompletionParams) -> types.CompletionList:
    opened = _Open(params.text_document.uri)
    if not opened.is_ours and len(opened.text.splitlines()) > 1:
        return types.CompletionList(is_incomplete=False, items=[])
    offset = opened.offset(params.position)
    found = completions(opened.text, offset, opened.samples(), format=opened.format, file=str(opened.path))
    return types.CompletionList(is_incomplete=False, items=[_item(opened, each, n) for n, each in enumerate(found)])


def _item(opened: _Open, each: Completion, number: int) -> types.CompletionItem:
    return types.CompletionItem(
        each.label,
        kind=_KINDS[each.kind],
        detail=each.detail or None,
        documentation=types.MarkupContent(types.MarkupKind.Markdown, each.documentation)
        if each.documentation
        else None,
        sort_text=f"{_ORDER.index(each.kind)}{number:04}",
        filter_text=each.text if each.text.startswith(('"', "\\")) else each.label,
        text_edit=types.TextEdit(opened.range(each.start, each.end), each.text),
    )


@server.feature(types.TEXT_DOCUMENT_HOVER)
def _hover(_: LanguageServer, params: types.HoverParams) -> types.Hover | None:
    opened = _Open(params.text_document.uri)
    if not opened.is_ours:
        return None
    offset = opened.offset(params.position)
    found = hover(opened.text, offset, opened.samples(), format=opened.format, file=str(opened.path))
    if found is None:
        return None
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, found.text), opened.range(found.start, found.end))


@server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
def _symbols(_: LanguageServer, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
    opened = _Open(params.text_document.uri)
    return [_symbol(opened, each) for each in outline(opened.text, format=opened.format)] if opened.is_ours else []


def _symbol(opened: _Open, each: Symbol) -> types.DocumentSymbol:
    kind = types.SymbolKind.Object if each.children else types.SymbolKind.Field
    return types.DocumentSymbol(
        each.name or "·",
        kind,
        opened.range(each.start, each.end),
        opened.range(each.name_start, each.name_end),
        detail=each.detail or None,
        children=[_symbol(opened, child) for child in each.children],
    )


# --- fixes ---


@server.feature(
    types.TEXT_DOCUMENT_CODE_ACTION,
    types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix, types.CodeActionKind.SourceFixAll]),
)
def _actions(_: LanguageServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    opened = _Open(params.text_document.uri)
    if not opened.is_ours:
        return []
    wanted = params.context.only or [types.CodeActionKind.QuickFix]
    if types.CodeActionKind.SourceFixAll in wanted:
        return list(_fix_all(opened))
    return list(_quick_fixes(opened, params.range.start.line, params.range.end.line))


def _quick_fixes(opened: _Open, first: int, last: int) -> Iterator[types.CodeAction]:
    """Yield the fixes of problems in the lines from `first` to `last`: a cursor is rarely just on the word."""
    for problem in opened.check():
        shown = opened.range_of(problem)
        if problem.fix is None or shown.end.line < first or shown.start.line > last:
            continue
        edits = [types.TextEdit(opened.range(edit.start, edit.end), edit.text) for edit in problem.fix.edits]
        yield types.CodeAction(
            problem.fix.title,
            kind=types.CodeActionKind.QuickFix,
            diagnostics=[_diagnostic(opened, problem)],
            is_preferred=problem.fix.safe,
            edit=types.WorkspaceEdit(changes={opened.uri: edits}),
        )


def _fix_all(opened: _Open) -> Iterator[types.CodeAction]:
    fixed, count = fix_all(opened.text, opened.check)
    if count:
        edit = types.TextEdit(opened.range(0, len(opened.text)), fixed)
        yield types.CodeAction(
            "fix all that is certain",
            kind=types.CodeActionKind.SourceFixAll,
            edit=types.WorkspaceEdit(changes={opened.uri: [edit]}),
        )


# --- examples ---


@server.feature(types.TEXT_DOCUMENT_CODE_LENS, types.CodeLensOptions())
def _lenses(_: LanguageServer, params: types.CodeLensParams) -> list[types.CodeLens]:
    opened = _Open(params.text_document.uri)
    if not opened.is_ours:
        return []
    try:
        mapping = compile_document(read_document(opened.text, file=str(opened.path), format=opened.format))
    except DocumentError:
        return []
    return [_lens(opened, result) for result in run_examples(mapping)]


def _lens(opened: _Open, result: ExampleResult) -> types.CodeLens:
    start = opened.positions.start_of_line(max(result.location.line - 1, 0))
    if result.passed:
        title = "✓ as expected"
    else:
        first = result.differences[0]
        made = f": {first.actual}" if first.actual else ""
        title = f"✗ {first.title}{made}"
    return types.CodeLens(opened.range(start, start), types.Command(title, ""))
