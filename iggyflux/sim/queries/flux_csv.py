"""Results of Flux as annotated CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from iggyflux.sim.queries.flux_values import KINDS, FluxResult, Table, Time


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """The requested form of the CSV."""

    annotations: tuple[str, ...] = ()
    header: bool = True
    delimiter: str = ","
    comment: str = "#"


def write(
    results: Sequence[FluxResult], dialect: CsvFormat, time: Callable[[int], str], number: Callable[[float], str]
) -> Iterator[bytes]:
    """Return annotated CSV.  A complete answer ends with an empty line."""
    for result in results:
        before: tuple[object, ...] | None = None
        for index, table in enumerate(result.tables):
            shape = (tuple(table.columns.items()), table.group, result.name)
            lines: list[str] = []
            if shape != before:
                if before is not None:
                    lines.append("")
                lines += _head(result.name, table, dialect)
                before = shape
            label = "" if "default" in dialect.annotations else result.name
            for row in table.rows:
                cells = [label, str(index), *(_cell(row.get(name), time, number) for name in table.columns)]
                lines.append(_line(["", *cells], dialect))
            yield "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")
        yield b"\r\n"


def _head(name: str, table: Table, dialect: CsvFormat) -> list[str]:
    kinds = ["string", "long", *(KINDS[kind] for kind in table.columns.values())]
    flags = ["false", "false", *("true" if column in table.group else "false" for column in table.columns)]
    defaults = [name, "", *("" for _ in table.columns)]
    annotations = {"datatype": kinds, "group": flags, "default": defaults}
    lines = [_line([dialect.comment + each, *annotations[each]], dialect) for each in dialect.annotations]
    if dialect.header:
        lines.append(_line(["", "result", "table", *table.columns], dialect))
    return lines


def _line(cells: Sequence[str], dialect: CsvFormat) -> str:
    return dialect.delimiter.join(_quoted(cell, dialect.delimiter) for cell in cells)


def _quoted(cell: str, delimiter: str) -> str:
    if not (cell[:1].isspace() or any(character in cell for character in (delimiter, '"', "\r", "\n"))):
        return cell
    return '"' + cell.replace('"', '""').replace("\r", "").replace("\n", "\r\n") + '"'


def _cell(value: object, time: Callable[[int], str], number: Callable[[float], str]) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Time):
        return time(value)
    return number(value) if isinstance(value, float) else str(int(value)) if isinstance(value, int) else str(value)
