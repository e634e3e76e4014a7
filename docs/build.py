"""Writes the pages of the reference from the schemas, tables and commands of the program.

`python docs/build.py` writes them; `python docs/build.py --check` fails if a page is not current.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
GENERATED = "<!-- made by docs/build.py: change the schema or the table, not this page -->\n"


def schema_page(name: str, title: str, introduction: str) -> str:
    """Return the reference of a document: every kind of node, with its keys."""
    from iggyflux.documents import load_schema

    schema = load_schema(name)
    lines = [GENERATED, f"# {title}\n", introduction, f"{schema['description']}\n"]
    if "allOf" not in schema:  # a document of one kind; else each kind has a section of its own
        lines += object_section("document", schema, level=2)
    definitions = schema.get("$defs", {})
    for key in reached(schema, definitions):
        lines += object_section(key, definitions[key], level=2)
    return "\n".join(lines).rstrip() + "\n"


def reached(schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Return the definitions in the order of their first use, from the whole to its parts."""
    found: list[str] = []
    waiting: list[Any] = [{key: value for key, value in schema.items() if key != "$defs"}]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            name = node.get("$ref", "").rsplit("/", 1)[-1] if isinstance(node.get("$ref"), str) else ""
            if name in definitions and name not in found:
                found.append(name)
                waiting.append(definitions[name])
            # A document has a key `examples` too: that one is a schema, and not a list of values.
            waiting += [value for key, value in node.items() if key != "examples" or isinstance(value, dict)]
    return found


def object_section(name: str, node: dict[str, Any], level: int) -> Iterator[str]:
    """Yield the section of one kind of node: what it is, what it may be, its keys, examples."""
    yield f"{'#' * level} {name}\n"
    yield f"{node.get('description', '')}\n"
    branches = node.get("anyOf") or [branch["then"] for branch in node.get("allOf", ())]
    if branches:
        yield f"One of: {', '.join(kind(branch) for branch in branches)}.\n"
    if "enum" in node:
        yield f"One of {', '.join(code(item) for item in node['enum'])}.\n"
    keys = {**node.get("properties", {}), **node.get("patternProperties", {})}
    if keys:
        yield "| key | is | |\n|---|---|---|"
        required = set(node.get("required", ()))
        for key, value in keys.items():
            notes = [value.get("description", "")]
            if "enum" in value:
                notes.append(f"One of {', '.join(code(item) for item in value['enum'])}.")
            if "default" in value:
                notes.append(f"Default {code(value['default'])}.")
            if value.get("examples") and not is_obvious(value, value["examples"][0]):
                notes.append(f"For instance {code(value['examples'][0])}.")
            must = " (required)" if key in required else ""
            yield f"| {code(key)}{must} | {kind(value)} | {cell(' '.join(filter(None, notes)))} |"
        yield ""
    examples = node.get("examples", [])
    if examples and not keys:
        yield f"Examples: {', '.join(code(example) for example in examples)}\n"


def is_obvious(node: dict[str, Any], example: object) -> bool:
    """Return whether a reader knows without `example` how a value is written: it is a number, or words, or shown."""
    if "default" in node or "enum" in node or "const" in node or isinstance(example, (bool, int)):
        return True
    is_shown = isinstance(example, str) and example in node.get("description", "")
    return is_shown or (isinstance(example, str) and re.fullmatch(r"[\w .,'-]+", example) is not None)


def kind(node: dict[str, Any]) -> str:
    """Return what a node may be, in a few words."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name})"
    if "const" in node:
        return code(node["const"])
    if "enum" in node:
        return "a word"
    if "anyOf" in node:
        return " or ".join(kind(branch) for branch in node["anyOf"])
    types = node.get("type", "object")
    words = {"array": "list", "object": "object"}
    names = [words.get(word, word) for word in ([types] if isinstance(types, str) else types)]
    if types == "array" and "items" in node:
        return f"list of {kind(node['items'])}"
    return " or ".join(names)


def code(value: object) -> str:
    """Return a value as it is written in a document, as code inside a table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    fence = "``" if "`" in text else "`"
    pad = " " if fence == "``" else ""
    return f"{fence}{pad}{cell(text)}{pad}{fence}"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def errors_page() -> str:
    """Return the page of codes: what each means, and what to do."""
    from iggyflux.codes import CODES

    lines = [
        GENERATED,
        "# Codes\n",
        "Every problem, failed record and stop has a code. The meaning of a code never changes.",
        "`iggyflux codes IFX304` prints the entry of one code.\n",
        "1xx documents, 2xx expressions, 3xx records, 4xx payloads, 5xx samples and commands, 6xx delivery and run,",
        "7xx transports, 8xx pipeline files.\n",
    ]
    for entry in sorted(CODES.values(), key=lambda entry: entry.code):
        lines += [f"## {entry.code}\n", f"**{entry.title}.** {entry.meaning}\n", f"*What to do*: {entry.fix}\n"]
        if entry.example:
            several = "\n" in entry.example
            shown = f"\n\n```text\n{entry.example}\n```" if several else f" {code(entry.example)}"
            lines += [f"*Example*:{shown}\n"]
    return "\n".join(lines).rstrip() + "\n"


def functions_page() -> str:
    from iggyflux.functions.reference import render_reference

    return GENERATED + "\n" + render_reference().rstrip() + "\n"


def commands_page() -> str:
    """Return the page of commands with their help, as a terminal of 90 columns shows it."""
    import click

    from iggyflux.cli import command_line

    lines = [
        GENERATED,
        "# Commands\n",
        "Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 problems found, 2 wrong",
        "usage, 3 the run stopped.\n",
    ]

    def add(command: click.Command, path: str) -> None:
        context = click.Context(command, info_name=path, terminal_width=90, max_content_width=90)
        lines.extend([f"## {path}\n", "```text", command.get_help(context).rstrip(), "```\n"])
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                add(inner, f"{path} {name}")

    add(command_line, "iggyflux")
    return "\n".join(lines).rstrip() + "\n"


MADE_BELOW = "<!-- the table is made by docs/build.py: change iggyflux/telemetry/metrics.py -->\n"


def metrics_page() -> str:
    """Return the page of metrics: what is written there, and below it the table."""
    from iggyflux.telemetry.metrics import METRICS

    written = (DOCS / "metrics.md").read_text().partition(MADE_BELOW)[0]
    lines = ["| metric | type | labels | is |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(map(code, metric.all_labels))
        lines.append(f"| {code(metric.name)} | {metric.type} | {labels} | {cell(metric.help)} |")
    return written + MADE_BELOW + "\n" + "\n".join(lines) + "\n"


def ready_page() -> str:
    """Return the index of the ready mappings: what each reads and writes, by its own comment and examples."""
    lines = [
        GENERATED,
        "# Ready mappings\n",
        "Copy one, change its stream and topic, and try it with its sample, or with your own messages:\n",
        "```console",
        "$ iggyflux dry-run mappings/tasmota.yaml mappings/samples/tasmota.ndjson",
        "$ iggyflux dry-run mappings/sparkplug-b.yaml mappings/samples/sparkplug-b.ndjson --envelope",
        "```\n",
        "Those of protobuf need `--envelope`, since their payloads are binary. The sample of a reader has rows.\n",
        "| mapping | reads | writes | for |",
        "|---|---|---|---|",
    ]
    lines += map(ready_row, sorted(READY.glob("*.yaml")))
    return "\n".join(lines) + "\n"


def ready_row(path: Path) -> str:
    """Return the row of a ready mapping."""
    from iggyflux import load_mapping
    from iggyflux.lineprotocol import parse_lines

    mapping = load_mapping(path)
    above = path.read_text("utf-8").partition("\niggyflux:")[0].splitlines()
    comment = " ".join(line.removeprefix("# ") for line in above if "yaml-language-server" not in line)
    examples: Any = mapping.examples
    written = [line for each in examples for line in each.get("points", ())]
    names = list(dict.fromkeys(point.measurement for line in written for point in parse_lines(line)))
    reads, writes = "rows of InfluxDB", "messages"
    if mapping.kind == "writer":
        reads = f"messages in {mapping.writer.source.payload.format}"
        writes = ", ".join(map(code, names[:3])) + (", …" if len(names) > 3 else "")
    first = comment.partition(". ")[0].rstrip(".")
    return f"| [{path.stem}]({path.name}) | {reads} | {writes} | {cell(first)} |"


READY = DOCS.parent / "iggyflux" / "gallery"
PAGES = {
    "../iggyflux/gallery/README.md": ready_page,
    "mapping.md": lambda: schema_page(
        "mapping",
        "Mapping documents",
        "YAML or TOML, the same tree. The rules on which people differ are in [the language](language.md). "
        "`iggyflux schema mapping` prints the JSON Schema for an editor.\n",
    ),
    "pipeline.md": lambda: schema_page(
        "pipeline",
        "Pipeline files",
        "Where and how: connections, routes, secrets. `iggyflux schema pipeline` prints the JSON Schema.\n",
    ),
    "functions.md": functions_page,
    "errors.md": errors_page,
    "commands.md": commands_page,
    "metrics.md": metrics_page,
}


def main() -> int:
    stale = []
    for name, make in PAGES.items():
        page = DOCS / name
        text = make()
        if "--check" in sys.argv:
            if not page.exists() or page.read_text() != text:
                stale.append(name)
        else:
            page.write_text(text)
    if stale:
        print(f"not up to date: {', '.join(stale)} (python docs/build.py)", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
