"""The language server, with a real client over stdio."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types
from pygls.lsp.client import LanguageClient

from iggyflux.editor.positions import Positions

MAPPING = """\
iggyflux: 1
kind: writer
from: {stream: s, topic: t}
points:
  measurement: {const: 🌡}
  tags: {device: "devcie"}          # été 🙂
  fields:
    v: {expr: "yield.lambda", type: flaot}
  timestamp: {expr: "at", format: unix_s}
"""
SAMPLES = '{"device": "d1", "yield": {"lambda": 21.5}, "at": 1780000000}\n'


class Editor:
    """An editor with one document open, as a client of the server."""

    def __init__(self, client: LanguageClient, path: Path) -> None:
        self.client = client
        self.uri = path.as_uri()
        self.text = ""
        self.version = 0
        self.published: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()

    def open(self, text: str, language: str = "yaml") -> None:
        self.text = text
        item = types.TextDocumentItem(self.uri, language, 0, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))

    def type(self, old: str, new: str) -> None:
        """Replace a part of the text, as an incremental change."""
        at = self.text.index(old)
        change = types.TextDocumentContentChangePartial(types.Range(self.place(at), self.place(at + len(old))), new)
        self.text = self.text.replace(old, new, 1)
        self.version += 1
        document = types.VersionedTextDocumentIdentifier(version=self.version, uri=self.uri)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))

    def place(self, offset: int) -> types.Position:
        return types.Position(*Positions(self.text).position(offset))

    def offset(self, place: types.Position) -> int:
        return Positions(self.text).offset(place.line, place.character)

    def shown(self, range_: types.Range) -> str:
        return self.text[self.offset(range_.start) : self.offset(range_.end)]

    async def diagnostics(self) -> dict[str, types.Diagnostic]:
        """The next problems that are published, by the text that they underline."""
        published = await asyncio.wait_for(self.published.get(), 60)
        return {self.shown(each.range): each for each in published.diagnostics}

    async def labels(self, offset: int) -> dict[str, types.CompletionItem]:
        document = types.TextDocumentIdentifier(self.uri)
        found = await self.client.text_document_completion_async(types.CompletionParams(document, self.place(offset)))
        return {each.label: each for each in found.items}  # type: ignore[union-attr]

    async def actions(self, only: list[types.CodeActionKind | str] | None = None) -> list[types.CodeAction]:
        whole = types.Range(self.place(0), self.place(len(self.text)))
        context = types.CodeActionContext([], only=only)
        found = await self.client.text_document_code_action_async(
            types.CodeActionParams(types.TextDocumentIdentifier(self.uri), whole, context)
        )
        return found or []  # type: ignore[return-value]

    def apply(self, action: types.CodeAction) -> str:
        """The text after an action."""
        assert action.edit is not None
        assert action.edit.changes is not None
        text = self.text
        for edit in sorted(action.edit.changes[self.uri], key=lambda each: self.offset(each.range.start), reverse=True):
            text = text[: self.offset(edit.range.start)] + edit.new_text + text[self.offset(edit.range.end) :]
        return text


@asynccontextmanager
async def editor(path: Path) -> AsyncIterator[Editor]:
    client = LanguageClient("test", "1")
    opened = Editor(client, path)

    @client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    def publish(params: types.PublishDiagnosticsParams) -> None:
        opened.published.put_nowait(params)

    ended: list[tuple[int | None, bytes]] = []

    async def server_exit(server: asyncio.subprocess.Process) -> None:
        assert server.stderr is not None
        ended.append((server.returncode, await server.stderr.read()))

    client.server_exit = server_exit  # type: ignore[method-assign]
    await client.start_io(sys.executable, "-m", "iggyflux", "lsp")
    await client.initialize_async(types.InitializeParams(capabilities=types.ClientCapabilities()))
    client.initialized(types.InitializedParams())
    yield opened
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()
    assert ended == [(0, b"")], "the server ends a session without a complaint"


def run(path: Path, session: Callable[[Editor], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with editor(path) as opened:
            return await session(opened)

    return asyncio.run(main())


def test_problems_follow_the_typing_and_fixes_end_them(tmp_path: Path) -> None:
    path = tmp_path / "été 🙂" / "m.yaml"
    (path.parent / "samples").mkdir(parents=True)
    (path.parent / "samples" / "m.ndjson").write_text(SAMPLES)

    async def session(opened: Editor) -> None:
        opened.open(MAPPING)
        found = await opened.diagnostics()
        assert {text: each.code for text, each in found.items()} == {"flaot": "IFX113"}
        [action] = await opened.actions()
        assert (action.title, action.is_preferred) == ("write float", True)
        assert opened.apply(action) == MAPPING.replace("flaot", "float")

        opened.type("flaot", "float")
        found = await opened.diagnostics()
        assert {text: each.code for text, each in found.items()} == {"devcie": "IFX157"}
        assert found["devcie"].severity is types.DiagnosticSeverity.Warning
        assert "did you mean device?" in found["devcie"].message
        [action] = await opened.actions([types.CodeActionKind.SourceFixAll])
        assert opened.apply(action) == MAPPING.replace("flaot", "float").replace("devcie", "device")

        opened.type("devcie", "device")
        assert await opened.diagnostics() == {}
        opened.type("iggyflux: 1\n", "")
        assert await opened.diagnostics() == {}  # no document of iggyflux any more

    run(path, session)


def test_proposals_explanations_and_parts(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    (tmp_path / "own.ndjson").write_text('{"payload": {"yield": {"lambda": 21.5}}, "headers": {"tenant": "x"}}\n')
    text = MAPPING.replace("iggyflux: 1\n", "# samples: own.ndjson\niggyflux: 1\n").replace("flaot", "float")

    async def session(opened: Editor) -> None:
        opened.open(text)
        at = opened.text.index("yield.lambda") + len("yield.")
        proposed = await opened.labels(at)
        assert list(proposed) == ["lambda"]
        assert proposed["lambda"].detail == "21.5"
        opened.type('"devcie"', "\"header('')\"")
        assert list(await opened.labels(opened.text.index("('") + 2)) == ["tenant"]

        document = types.TextDocumentIdentifier(opened.uri)
        at = opened.text.index("yield.lambda") + len("yield.")
        found = await opened.client.text_document_hover_async(types.HoverParams(document, opened.place(at + 1)))
        assert found is not None
        assert "`21.5`" in found.contents.value  # type: ignore[union-attr]
        assert found.range is not None
        assert opened.shown(found.range) == "lambda"
        symbols = await opened.client.text_document_document_symbol_async(types.DocumentSymbolParams(document))
        assert [each.name for each in symbols or ()] == ["iggyflux", "kind", "from", "points"]

    run(path, session)


def test_an_example_shows_its_result(tmp_path: Path) -> None:
    text = MAPPING.replace("flaot", "float").replace("devcie", "device") + (
        "examples:\n"
        "  - message: {device: d1, yield: {lambda: 1}, at: 1}\n"
        "    points: ['🌡,device=d1 v=1.0 1000000000']\n"
        "  - message: {device: d1, yield: {lambda: 2}, at: 1}\n"
        "    points: ['🌡,device=d1 v=1.0 1000000000']\n"
    )

    async def session(opened: Editor) -> None:
        opened.open(text)
        document = types.TextDocumentIdentifier(opened.uri)
        lenses = await opened.client.text_document_code_lens_async(types.CodeLensParams(document))
        titles = [(each.range.start.line, each.command.title) for each in lenses or () if each.command]
        assert titles == [(10, "✓ as expected"), (12, "✗ a line differs: 🌡,device=d1 v=2.0 1000000000")]

    run(tmp_path / "m.yaml", session)


@pytest.mark.parametrize(
    ("name", "text", "underlined"),
    [
        ("pipeline.yaml", "iggyflux: 1\ninfluxdb: {utl: http://h, database: d}\nfrom: log:x\nrun: [{mapping: m.yaml}]\n", "utl"),
        ("m.toml", "iggyflux = 1\nkind = 'writer'\n[form]\nstream = 's'\ntopic = 't'\n[points]\nmeasurement = {const = 'm'}\n", "form"),
    ],
)  # fmt: skip
def test_pipelines_and_toml_are_checked_too(tmp_path: Path, name: str, text: str, underlined: str) -> None:
    (tmp_path / "m.yaml").write_text(MAPPING.replace("flaot", "float"))

    async def session(opened: Editor) -> None:
        opened.open(text, Path(name).suffix[1:])
        assert underlined in await opened.diagnostics()
        assert [each.title for each in await opened.actions()] == [f"write {'url' if underlined == 'utl' else 'from'}"]

    run(tmp_path / name, session)


def test_documents_of_others_are_left_alone(tmp_path: Path) -> None:
    """Editors send each YAML file."""

    async def session(opened: Editor) -> None:
        opened.open("services:\n  web: {image: x}\nfrom: 1\n")
        assert await opened.diagnostics() == {}
        assert await opened.labels(12) == {}
        assert await opened.actions() == []

    run(tmp_path / "compose.yaml", session)


@given(st.text(st.sampled_from("aé🙂\n\r\t"), max_size=30), st.sampled_from(["utf-8", "utf-16", "utf-32"]))
def test_each_place_is_found_again(text: str, encoding: Any) -> None:
    positions = Positions(text, encoding)
    for offset in range(len(positions.plain) + 1):
        assert positions.offset(*positions.position(offset)) == offset
        assert positions.offset_of_units(positions.units(offset)) == offset
        assert positions.span(*(each + 1 for each in positions.position(offset)), 1)[0] <= len(positions.plain)
    data = positions.plain.encode(encoding if encoding == "utf-8" else f"{encoding}-le")
    assert positions.units(len(positions.plain)) * {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding] == len(data)
    assert positions.offset_of_units(10**6) == len(positions.plain)
    assert positions.offset(10**6, 0) == len(positions.plain)
    assert positions.plain[: positions.offset(0, 10**6)] == positions.plain.partition("\n")[0]
