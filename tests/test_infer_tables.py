"""What `infer` takes of tables as spreadsheets and devices write them: titles, units, comments, separators."""

from __future__ import annotations

import json
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iggyflux.authoring.inference import infer
from iggyflux.authoring.inference.recognition import recognize_file
from iggyflux.authoring.inference.wishes import Wishes
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


def buoys(count: int, names: list[str]) -> bytes:
    """Return a table with a row of each buoy at each of `count` times; waves, their state and the wind differ."""
    rows = [
        f"2026-05-{1 + at // 1440:02d}T{at // 60 % 24:02d}:{at % 60:02d}:00Z,{name},{(at * 7 + place) % 13},{state}"
        for at in range(count)
        for place, name in enumerate(names)
        for state in [("calm", "rough", "high")[(at * 5 + place * (at % 2)) % 3]]
    ]
    return "\n".join(["when,boje,swell,surface", *rows]).encode()


@pytest.mark.parametrize("count", [40, 700], ids=["few rows", "more rows than spread keeps apart"])
def test_what_tells_rows_of_one_time_apart_is_a_tag(count: int) -> None:
    """So a load of single rows overwrites none; `spread` would keep them apart only within one payload."""
    found = infer(recognize_file(buoys(count, ["Alster", "Förde"])))

    assert "boje" in [tag.key for tag in found.tags]
    assert "boje" not in [field.key for field in found.fields]
    assert found.time.spread is None


def test_texts_that_cannot_tell_rows_apart_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping for each of many columns would take minutes."""
    module = sys.modules["iggyflux.authoring.inference.prove"]
    compiled, made = module._compiled, 0

    def counting(*given: Any) -> Any:
        nonlocal made
        made += 1
        return compiled(*given)

    monkeypatch.setattr(module, "_compiled", counting)
    columns = range(30)
    rows = [
        ",".join(
            ["2026-05-01T00:00:00Z", f"{row}.5", *(f"a remark with number {row * 7919 + each}" for each in columns)]
        )
        for row in range(20)
    ]
    text = "\n".join([",".join(["when", "swell", *(f"remark{each}" for each in columns)]), *rows])

    found = infer(recognize_file(text.encode()))

    assert [field.type for field in found.fields].count("string") == len(columns)
    assert made < 10


def test_rows_that_nothing_tells_apart_are_not_called_empty() -> None:
    """Numbers stay fields, and `spread` keeps 1,000 elements apart."""
    rows = "\n".join(["when,swell", *(f"2026-05-01T00:00:00Z,{at}.5" for at in range(1_200))])

    with pytest.raises(SampleError) as caught:
        infer(recognize_file(rows.encode()))

    assert caught.value.code == "IFX545"
    assert "--tag" in (caught.value.hint or "")


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "Latin-1"), ("cp1252", "Windows-1252")])
def test_a_table_in_another_encoding_is_said_to_be_in_it(encoding: str, name: str) -> None:
    text = (
        "Boje;Böen\nFörde – Nord;1,5\nAlster;2,25\n" if encoding == "cp1252" else "Boje;Böen\nFörde;1,5\nAlster;2,25\n"
    )

    found = recognize_file(text.encode(encoding))
    with pytest.raises(SampleError) as caught:
        recognize_file(text.replace(";", "\n").encode(encoding))

    assert found.options == {"delimiter": ";", "decimal": ",", "encoding": "windows-1252"}
    assert found.payloads == [text.encode(encoding)]
    assert "not UTF-8" in found.how
    assert found.trees == recognize_file(text.encode()).trees
    assert "not UTF-8" in caught.value.reason
    assert name in caught.value.reason
    assert "iconv" in (caught.value.hint or "")


def test_lines_in_another_encoding_are_proposed_with_it() -> None:
    """Each with the bytes that it has; a mapping of them renders and tests what it was made of."""
    data = "2026-05-01T06:00:00Z raum=Küche lux=7\n2026-05-01T06:01:00Z raum=Flur lux=9\n".encode("latin-1")

    found = recognize_file(data)
    proposal = infer(found)

    assert found.payloads == data.splitlines()
    assert found.options["encoding"] == "windows-1252"
    assert "raum=Küche" in proposal.text("yaml")


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(
    ("rows", "minutes", "is_tag"),
    [(400, 400, False), (400, 1, True), (40, 40, True)],
    ids=["a long table", "the sources of one time", "a short list"],
)
def test_an_id_of_each_row_of_a_long_table_makes_no_series(form: str, rows: int, minutes: int, is_tag: bool) -> None:
    """As a tag it made a series for each row; of a list of sources it is what points are looked up by."""
    table = [
        {
            "at": f"2026-03-01T{number % minutes // 60:02}:{number % minutes % 60:02}:00Z",
            "press": f"p{number % 3}",
            "uid": str(uuid.UUID(int=number * 7919**9)),
            "bar": number / 7,
        }
        for number in range(rows)
    ]
    lines = [",".join(table[0]), *(",".join(map(str, row.values())) for row in table)]
    text = json.dumps(table) if form == "json" else "\n".join([*lines, ""])
    proposal = infer(recognize_file(text.encode()), Wishes("s", "t"))

    assert ("uid" in [tag.key for tag in proposal.tags]) == is_tag
    assert ("uid" in [field.key for field in proposal.fields]) == (not is_tag)
    assert "press" in [tag.key for tag in proposal.tags]


@pytest.mark.parametrize(("days", "decides"), [(12, False), (14, True)])
def test_day_and_month_are_told_by_any_row(days: int, decides: bool) -> None:
    """Of a file with a row for two minutes, the first 1,000 times are of two days."""
    rows = [f"{1 + minute // 1440:02}.01.2026 {minute // 60 % 24:02}:{minute % 60:02};{minute % 7}.5"
            for minute in range(0, days * 1440, 2)]  # fmt: skip
    text = "\n".join(["at;bar", *rows, ""]).encode()

    if decides:
        assert infer(recognize_file(text), Wishes("s", "t")).time.format == "%d.%m.%Y %H:%M"
    else:
        with pytest.raises(SampleError, match="may be"):
            infer(recognize_file(text), Wishes("s", "t"))


def test_the_hour_that_a_change_of_clocks_makes_twice_is_told() -> None:
    """A year of local times; two rows of it have one time, which says not which hour it is."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    local = [(begin + timedelta(hours=hour)).astimezone(ZoneInfo("Europe/Berlin")) for hour in range(8760)]
    text = "\n".join(["at;bar", *(f"{at:%d.%m.%Y %H:%M};{at.minute + 0.5}" for at in local), ""])
    proposal = infer(recognize_file(text.encode()), Wishes("s", "t", timezone="Europe/Berlin"))

    assert (proposal.time.expression, proposal.time.timezone) == ("at", "Europe/Berlin")
    assert [note for note in proposal.notes if note.startswith("CHECK")] == [
        "CHECK: 2 of 8,760 fail, for their times: '25.10.2026 02:00' occurs twice in the local time of Europe/Berlin."
    ]


def test_a_few_rows_of_one_time_leave_the_others_their_time() -> None:
    """As an autumn of local times has them that is read as UTC: more rows than `spread` keeps apart were refused."""
    begin = datetime(2026, 9, 1, tzinfo=UTC)
    local = [(begin + timedelta(hours=hour)).astimezone(ZoneInfo("Europe/Berlin")) for hour in range(1500)]
    text = "\n".join(["at;bar", *(f"{at:%d.%m.%Y %H:%M};{hour % 7}.5" for hour, at in enumerate(local)), ""])
    proposal = infer(recognize_file(text.encode()), Wishes("s", "t"))

    assert (proposal.time.expression, proposal.time.spread, proposal.keeps_last) == ("at", None, True)
    assert "CHECK: 1 of 1,500 points have tags and time of another one: the last one remains." in proposal.notes


def test_a_few_times_that_are_none_and_rows_of_one_time_are_two_things() -> None:
    """Neither hides that the other ones are few."""
    begin = datetime(2026, 2, 20, tzinfo=UTC)
    rows = [[f"{begin + timedelta(minutes=number):%d.%m.%Y %H:%M}", f"{number}.5"] for number in range(3000)]
    rows[1700][0] = "31.02.2026 00:00"
    rows[2500][0] = rows[2499][0]
    text = "\n".join(["at;bar", *map(";".join, rows), ""]).encode()
    proposal = infer(recognize_file(text), Wishes("s", "t"))

    assert proposal.time.expression == "at"
    assert [note for note in proposal.notes if note.startswith("CHECK")] == [
        "CHECK: 1 of 2,999 fail, for their times: '31.02.2026 00:00' has an invalid date.",
        "CHECK: 1 of 2,999 points have tags and time of another one: the last one remains.",
    ]


def test_a_long_table_without_times_is_refused_with_advice() -> None:
    """All rows would have the time of the message, so there is no other time for the last one to keep."""
    text = "\n".join(["bar;level", *(f"{number}.5;{number}.25" for number in range(1500)), ""]).encode()
    with pytest.raises(SampleError, match="too many elements have the same tags and time") as raised:
        infer(recognize_file(text), Wishes("s", "t"))

    assert raised.value.hint == "name the member that tells them apart: --tag NAME"


@pytest.mark.parametrize(
    ("form", "row", "bad", "is_kept"),
    [
        ("%d.%m.%Y %H:%M:%S", 2, 1, True),
        ("%Y-%m-%dT%H:%M:%SZ", 2, 30, True),
        ("%Y-%m-%dT%H:%M:%SZ", 1700, 40, False),
        ("%Y/%m/%d %H:%M", 1700, 30, True),
        ("%Y/%m/%d %H:%M", 2, 40, False),
    ],
)
def test_up_to_a_hundredth_of_the_times_may_be_none(form: str, row: int, bad: int, *, is_kept: bool) -> None:
    """Wherever they are: the first rows of a device whose clock is not set yet have none."""
    begin = datetime(2026, 2, 20, tzinfo=UTC)
    times = [f"{begin + timedelta(minutes=number):{form}}" for number in range(3000)]
    times[row : row + 2 * bad : 2] = [f"unset {number}" for number in range(bad)]
    text = "\n".join(["at;bar", *(f"{at};{number}.5" for number, at in enumerate(times)), ""]).encode()
    try:
        proposal = infer(recognize_file(text), Wishes("s", "t"))
    except SampleError:
        assert not is_kept
        return

    assert is_kept
    assert (proposal.time.expression, proposal.time.format) == ("at", form.replace("%Y-%m-%dT%H:%M:%SZ", "rfc3339"))
    assert f"CHECK: {bad} of 3,000 fail" in "".join(proposal.notes)
