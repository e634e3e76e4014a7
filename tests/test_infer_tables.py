"""What `infer` takes of tables as spreadsheets and devices write them: titles, units, comments, separators."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.authoring.inference.recognition import recognize_file
from iggyflux.authoring.samples import SampleError
from iggyflux.payloads import FORMATS

PRESSES = [("north", "1.5", "7"), ("south", "-2.25", "8"), ("east", "30.0", "9")]


@settings(max_examples=150)
@given(
    titles=st.lists(st.sampled_from(["Press hall", "Export, of today", "", "a;b"]), max_size=4),
    units=st.sampled_from([None, ("", "bar", "1/min"), ("name", "°C", "-"), ("", "kWh", "")]),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    note=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    whole=st.booleans(),
)
def test_a_table_is_read_as_its_writer_meant_it(
    titles: list[str], units: tuple[str, ...] | None, delimiter: str, decimal: str, note: bool, end: str, whole: bool
) -> None:
    """The rows are the same whatever is around them, and the comment names what was left out."""
    decimal = "." if delimiter == "," else decimal
    cells = [(name, level.replace(".", decimal), count) for name, level, count in PRESSES]
    rows = [("press", "level", "count"), *([units] if units else []), *cells]
    lines = [*titles, *([f"# serviced{delimiter}"] * note), *(delimiter.join(row) for row in rows)]
    found = recognize_file(end.join([*lines, ""]).encode(), whole=whole)
    read = FORMATS["csv"].decode(found.payloads[0], found.options, None, False)

    assert found.format == "csv"
    assert found.trees == [[{"press": name, "level": level, "count": count} for name, level, count in PRESSES]]
    assert found.options.get("units_row", False) == bool(units)
    assert ("row of units" in found.how) == bool(units)
    assert [tuple(row.values()) for row in read] == cells  # type: ignore[union-attr]
    assert ("left out" in found.how) == bool(units or found.options.get("skip"))


@pytest.mark.parametrize(
    "rows",
    [
        ["press,level", "north,n/a", "south,2"],
        ["press,level", "north,", "south,2"],
        ["press,level", "north,broken", "south,2"],
        ["press,level,at", "north,n/a,07:00", "south,2,08:00"],
        ["press,hall", "north,a", "south,b"],
    ],
    ids=", ".join,
)
def test_a_first_row_without_a_number_is_not_taken_for_units(rows: list[str]) -> None:
    found = recognize_file("\n".join(rows).encode())

    assert "units_row" not in found.options
    assert len(found.trees[0]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lines",
    [
        ["{", '{"a": 1, "b": 2}', '{"a": 3, "b": 4}', '{"a": 5, "b": 6}'],
        ["m,t f=", "m,t=a f=1,g=2 1", "m,t=b f=2,g=3 2", "m,t=c f=3,g=4 3"],
        ["<a>", "<b>1,2</b>", "<b>3,4</b>", "<b>5,6</b>"],
    ],
    ids=["JSON", "line protocol", "XML"],
)
def test_a_first_line_that_is_broken_is_no_title(lines: list[str]) -> None:
    with pytest.raises(SampleError):
        recognize_file("\n".join(lines).encode())
