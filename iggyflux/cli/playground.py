"""`iggyflux playground`: the playground on loopback, for one person."""

from __future__ import annotations

from pathlib import Path

import click

from iggyflux.cli.logs import Origin
from iggyflux.cli.output import ExitCode

_PARTS = ("starlette", "uvicorn", "anyio")


@click.command(name="playground")
@click.argument("mapping", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.argument("samples", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--from", "origin", type=Origin(), help="Where the page can take the last messages of a topic from.")
@click.option(
    "--pipeline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --from iggy: the pipeline file with the connection (or set IGGY_ADDRESS, …).",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    default=0,
    show_default=True,
    help="Port on 127.0.0.1 to listen on; 0 selects a free one.",
)
@click.option(
    "--open/--no-open",
    "opens",
    help="Open the page in the browser; not by default: other users see what a browser is started with.",
)
def command(
    mapping: Path | None, samples: Path | None, origin: str | None, pipeline: Path | None, port: int, opens: bool
) -> int:
    """Write a mapping in the browser, and see what comes of samples.

    Prints the URL of a page for this machine only, with a token, and serves it until it is interrupted. At every
    keystroke the page shows problems, points, lines, failures, series, and what InfluxDB 1.x, 2.x and 3.x would answer.
    It can open and save mappings in the folder of MAPPING (default: this folder), and no other file. SAMPLES is a
    file; without it, the one that belongs to MAPPING as for `lsp`. It needs `pip install iggyflux[playground]`.

    \b
    Example:
      iggyflux playground
      iggyflux playground mapping.yaml samples.ndjson --port 8090
      iggyflux playground mapping.yaml --from log:data
    """
    if pipeline is not None and origin != "iggy":
        raise click.UsageError("--pipeline needs --from iggy")
    try:
        from iggyflux.cli.playground_server import serve  # starlette and uvicorn take 300 ms, and are an extra
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _PARTS:
            raise
        raise click.UsageError("the playground is not installed: pip install 'iggyflux[playground]'") from error
    serve(mapping, samples, origin, pipeline, port, opens=opens)
    return ExitCode.OK
