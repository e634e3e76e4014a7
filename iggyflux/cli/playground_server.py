"""Builds the playground from the arguments of the command, and serves it until it is interrupted."""

from __future__ import annotations

import secrets
import socket
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import uvicorn

from iggyflux.cli.inputs import open_input
from iggyflux.cli.log import TopicName, envelope_line
from iggyflux.cli.logs import open_log
from iggyflux.cli.output import flush_results, note, result_line
from iggyflux.cli.sample_files import find_samples
from iggyflux.cli.signals import until_signal
from iggyflux.playground.app import Playground, Start, Topics, create_app
from iggyflux.playground.files import ENDINGS, FileRefused, Folder
from iggyflux.records import Message

HOST: Final = "127.0.0.1"
WELCOME: Final = Path(__file__).parents[1] / "playground" / "welcome"
MOST_SAMPLE_BYTES: Final = 4 << 20
_GRACE_SECONDS: Final = 2


def serve(
    mapping: Path | None, samples: Path | None, origin: str | None, pipeline: Path | None, port: int, *, opens: bool
) -> None:
    """Serve the playground until it is interrupted."""
    folder, start = _start(mapping, samples)
    topics = None if origin is None else topics_of(origin, pipeline)
    with _listening(port) as listener, until_signal() as signalled:
        address = f"{HOST}:{listener.getsockname()[1]}"
        token = secrets.token_urlsafe(32)
        hosts = frozenset({address, f"localhost:{listener.getsockname()[1]}"})
        app = create_app(Playground(token, hosts, folder, start, topics))
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="iggyflux-playground", daemon=True)
        thread.start()
        url = f"http://{address}/#token={token}"
        result_line(url)
        flush_results()
        note(f"Ctrl-C ends it; the page opens and saves mappings in {folder.path}")
        if opens:
            webbrowser.open(url)
        signalled.wait()
        server.should_exit = True
        thread.join(_GRACE_SECONDS + 1)


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise click.UsageError(f"cannot listen: {error.strerror} (use --port 0 for a free port)") from error
    return listener


def _start(mapping: Path | None, samples: Path | None) -> tuple[Folder, Start]:
    """Return the folder, and what the page begins with."""
    if mapping is None:
        text, welcome = ((WELCOME / name).read_text("utf-8") for name in ("mapping.yaml", "samples.ndjson"))
        return Folder(Path()), Start(text, welcome)
    if mapping.suffix not in ENDINGS:
        raise click.UsageError(f"{mapping}: expected a name that ends with {', '.join(ENDINGS)}")
    path = mapping.resolve()  # a link that the user names is meant
    folder = Folder(path.parent)
    if not path.parent.is_dir():
        raise click.UsageError(f"directory {mapping.parent} does not exist")
    text = ""
    if path.exists():
        try:
            text = folder.open(path.name).text
        except FileRefused as refused:
            raise click.UsageError(f"{mapping}: {refused.reason} ({refused.hint})") from refused
        samples = samples or find_samples(path, text)
    return folder, Start(text, "" if samples is None else _sample_text(samples), path.name)


def _sample_text(path: Path) -> str:
    """Return the samples of a file: the first lines of a large one."""
    data = bytearray()
    with open_input(path) as lines:
        for line in lines:
            if len(data) + len(line) > MOST_SAMPLE_BYTES:
                note(f"the first {len(data):,} bytes of {path} are used")
                break
            data += line
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = 'binary payloads are lines such as {"payload_base64": "…"}'
        raise click.UsageError(f"{path} is not text ({hint})") from None


# --- topics ---


def topics_of(origin: str, pipeline: Path | None) -> Topics:
    """Return how the page takes the last messages of a topic of an origin."""
    if origin == "iggy":
        from iggyflux.cli.iggy import iggy_settings, last_of_topic  # loads the SDK (60 ms), only with --from iggy

        settings = iggy_settings(pipeline)
        return Topics(origin, (), lambda name, count: _as_text(last_of_topic(settings, *_split(name), count), name))
    folder = Path(origin.removeprefix("log:"))
    names = tuple("/".join(place) for place in open_log(folder).topics())
    return Topics(origin, names, lambda name, count: _as_text(open_log(folder).tail(*_split(name), count), name))


def _split(name: str) -> tuple[str, str]:
    try:
        return TopicName().convert(name, None, None)
    except click.UsageError as error:
        raise FileRefused("", error.message, "write it as STREAM/TOPIC") from error


def _as_text(messages: Sequence[Message], name: str) -> str:
    if not messages:
        raise FileRefused("IFX540", f"{name} has no messages", "choose another topic")
    return b"".join(map(envelope_line, messages)).decode("utf-8", "replace")
