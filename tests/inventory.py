"""What users can rely on, as plain data: commands, names, codes, events, keys, formats and ids.

`collect()` reads it from the code; tests/inventory.json is the last accepted state.  A change of only one of them
fails.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import iggyflux
from iggyflux import Message, parse_mapping
from iggyflux.cli import command_line
from iggyflux.codes import CODES
from iggyflux.records import DeadLetter, Reason, Row
from iggyflux.runner.status import ReaderStatus, RouteStatus, Status, Summary
from iggyflux.transports.local.deadletters import encode_letter

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_suffix(".json")

READERS = {
    "rows": '{payload: "{at: time, tiefe: tiefe, ort: ort}"}',
    "two": '[{payload: "{a: tiefe}"}, {payload: "{b: tiefe}"}]',
    "series": '{for_each: series, payload: "@"}',
}
COLUMNS: list[dict[str, Any]] = [
    {"time": 1_700_000_000_000_000_000, "ort": "Köln", "tiefe": 2.5},
    {"time": 1_700_000_000_000_000_001, "ort": "a b", "tiefe": -0.0},
    {"time": -1, "ort": "", "tiefe": 9_007_199_254_740_993},
    {"time": 0, "ort": None, "tiefe": True},
    {"time": 5, "lambda": "\u2028", "tiefe": "7"},
]


def collect() -> dict[str, Any]:
    """Return everything, as JSON values in a stable order."""
    return {
        "commands": dict(sorted(_commands(command_line, "iggyflux"))),
        "names": {name: _signature(getattr(iggyflux, name)) for name in sorted(iggyflux.__all__) if name[0] != "_"},
        "codes": sorted(CODES),
        "events": sorted(set(_events())),
        "status": Summary((RouteStatus("r", reader=ReaderStatus()),), 0.0).as_dict()
        | {"routes": [RouteStatus("r", reader=ReaderStatus()).as_dict()]},
        "status_file": sorted(Status().as_dict()),
        "dead_letter": json.loads(encode_letter(_letter())),
        "message_ids": _message_ids(),
        "schema_keys": {path.name: sorted(set(_schema_keys(json.loads(path.read_text())))) for path in _schemas()},
    }


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, list[str]]]:
    context = click.Context(command, info_name=path)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, f"{path} {name}")
    yield path, sorted("/".join((*each.opts, *each.secondary_opts)) for each in command.params)


def _signature(value: Any) -> str | list[str]:
    if inspect.isclass(value):
        return sorted(name for name, member in inspect.getmembers(value) if name[0] != "_" and not _foreign(member))
    return str(inspect.signature(value))


def _foreign(member: Any) -> bool:
    return inspect.isbuiltin(member) or inspect.ismethoddescriptor(member)


def _events() -> Iterator[str]:
    """Return the dotted name in each `emit(log, level, name, …)` and `log.warning("name key=%s", …)`."""
    for path in sorted((ROOT / "iggyflux").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                for argument in node.args:
                    text = argument.value if isinstance(argument, ast.Constant) else None
                    is_call_of_log = ast.unparse(node.func).startswith(("emit", "log.", "_log."))
                    if is_call_of_log and isinstance(text, str) and "." in text.split()[0]:
                        yield text.split()[0]


def _letter() -> DeadLetter:
    message = Message(b'{"x":1}', "s", "t", 3, 4, 5, 6, 2**127, {"k": "v", "n": 1})
    reason = Reason("IFX340", "expected a number", "/points/fields/x", 1, 2, "m x=1 5", 400)
    return DeadLetter(message, "name", "0123456789abcdef", (reason,), route="r")


def _message_ids() -> dict[str, list[str]]:
    rows = [Row(columns=columns, measurement="pegel") for columns in COLUMNS]
    made = {}
    for name, messages in READERS.items():
        text = "iggyflux: 1\nkind: reader\nname: inventory\nfrom: {measurement: pegel, tags: [ort], fields: [tiefe]}\n"
        text += f"to: {{stream: s, topic: t}}\nmessages: {messages}\n"
        made[name] = [f"{message.id:032x}" for message in parse_mapping(text).plan().render(rows).messages]
    return made


def _schemas() -> list[Path]:
    return sorted((ROOT / "iggyflux" / "schemas").glob("*.json"))


def _schema_keys(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, inner in node.items():
            if key in ("properties", "patternProperties") and isinstance(inner, dict):
                for name, child in inner.items():
                    yield name
                    yield from _schema_keys(child)
            else:
                yield from _schema_keys(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _schema_keys(inner)


def main() -> None:
    """Write the file again."""
    FILE.write_text(
        json.dumps(collect(), indent=1, ensure_ascii=False, sort_keys=True, default=dataclasses.asdict) + "\n"
    )


if __name__ == "__main__":
    main()
