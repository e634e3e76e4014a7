"""`iggyflux dead-letters`: what it tells agrees with the letters, whatever they hold."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell import iggyflux

from iggyflux.escapes import escaped
from iggyflux.records import DeadLetter, Message, Reason
from iggyflux.transports.local.deadletters import encode_letter

CANARY = "pl4nted-canary"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
REASONS = st.builds(
    Reason,
    code=st.sampled_from(["IFX340", "IFX609", "IFX999"]),
    reason=TEXTS,
    location=st.sampled_from(["", "/points/0/fields/heat"]),
    element=st.none() | st.integers(0, 9),
    line=st.none() | TEXTS,
    status=st.none() | st.just(400),
    elements=st.just(()) | st.lists(st.integers(0, 9), min_size=2, max_size=3).map(tuple),
)
LETTERS = st.lists(
    st.builds(
        DeadLetter,
        message=st.builds(
            Message,
            payload=st.binary(max_size=20).map(lambda data: data + CANARY.encode()),
            stream=st.sampled_from(["pottery", "a b", "ü\x1b"]),
            topic=TEXTS.filter(lambda text: "/" not in text),
            partition=st.integers(0, 3),
            offset=st.integers(0, 2**64 - 1),
            timestamp_us=st.integers(0, 4 * 10**15),
            headers=st.dictionaries(TEXTS, st.just(CANARY), max_size=2),
        ),
        mapping=st.sampled_from(["kilns", "wheels"]),
        plan=st.sampled_from(["", "8e8ca247f05c"]),
        route=st.sampled_from(["", "kilns", "glaze ü"]),
        reasons=st.lists(REASONS, min_size=1, max_size=3).map(tuple),
    ),
    max_size=3,
    unique_by=lambda letter: (
        letter.message.stream,
        letter.message.topic,
        letter.message.partition,
        letter.message.offset,
    ),
)
PLENTY = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def kept(folder: Path, letters: list[DeadLetter]) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "17.ndjson"
    path.write_bytes(b"".join(encode_letter(letter) + b"\n" for letter in letters))
    return str(path)


@PLENTY
@given(letters=LETTERS)
def test_all_forms_agree_with_the_letters(letters: list[DeadLetter], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Counts by mapping and code, one line a letter, no control characters, no payload that was not asked for."""
    path = kept(tmp_path_factory.mktemp("letters"), letters)
    expected = Counter((each.mapping, code) for each in letters for code in {reason.code for reason in each.reasons})

    summary = json.loads(iggyflux("dead-letters", "summary", path, "--format", "json").out)
    assert summary["letters"] == len(letters)
    assert {(each["mapping"], each["code"]): each["letters"] for each in summary["kinds"]} == expected

    rows = [json.loads(line) for line in iggyflux("dead-letters", "list", path, "--format", "json").out.splitlines()]
    assert [row["message"] for row in rows] == [name_of(each) for each in letters]
    assert [row.get("route", "") for row in rows] == [each.route for each in letters]
    assert [[each["code"] for each in row["reasons"]] for row in rows] == [
        [reason.code for reason in each.reasons] for each in letters
    ]
    texts = [iggyflux("dead-letters", what, path) for what in ("summary", "list")]
    assert len(texts[1].out.splitlines()) == len(letters)
    for text in [*texts, *(iggyflux("dead-letters", "show", path, name_of(each)) for each in letters)]:
        assert text.code == 0
        assert CANARY not in text.out + text.err
        assert [line for line in text.out.split("\n") if escaped(line) != line] == []


def name_of(letter: DeadLetter) -> str:
    message = letter.message
    return f"{message.stream}/{message.topic}/{message.partition}@{message.offset}"


LETTER = DeadLetter(
    Message(b'{"heat": "hot"}\xff', "pottery", "kilns", 1, 20, 1767225600_000000, headers={"site": CANARY}),
    "kilns",
    "8e8ca247f05c4c2c",
    (
        Reason("IFX340", "expected a number", "/points/0/fields/heat", elements=(2, 0)),
        Reason("IFX609", "field type conflict", line="kiln heat=1 1", status=400),
    ),
    route="kilns to the north",
)


def test_one_letter_is_shown_with_its_reasons(tmp_path: Path) -> None:
    done = iggyflux("dead-letters", "show", kept(tmp_path, [LETTER]), "pottery/kilns/1@20", "--payload")
    assert done.out.splitlines() == [
        "pottery/kilns/1@20",
        "  arrived   2026-01-01T00:00:00Z",
        "  route     kilns to the north",
        "  mapping   kilns (plan 8e8ca247f05c4c2c)",
        "  headers   site",
        "  IFX340    expected a number (/points/0/fields/heat; element 2.0)",
        "  IFX609    field type conflict (HTTP 400)",
        "            kiln heat=1 1",
        "  payload   16 bytes",
        '{"heat": "hot"}\\xff',
    ]
    shown = iggyflux("dead-letters", "show", str(tmp_path), "pottery/kilns/1@20", "--payload", "--format", "json")
    assert json.loads(shown.out)["headers"] == {"site": CANARY}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--reason", "ifx609"], 1),
        (["--reason", "IFX345"], 0),
        (["--since", "2026-01-01T00:00:01Z"], 0),
        (["--until", "2026-01-01T00:00:01Z"], 1),
        (["--mapping-name", "wheels"], 0),
    ],
)
@pytest.mark.parametrize("what", ["summary", "list"])
def test_letters_are_chosen_as_by_replay(tmp_path: Path, what: str, options: list[str], count: int) -> None:
    done = iggyflux("dead-letters", what, kept(tmp_path, [LETTER]), *options)
    assert done.code == 0
    assert f"{count} dead letter" in done.err
    assert ("1 other dead letter" in done.err) == (count == 0)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    path = kept(tmp_path, [LETTER] * 3)
    assert "3 dead letters in" in iggyflux("dead-letters", "list", path, "--limit", "1").err
    assert ", 2 more with --limit" in iggyflux("dead-letters", "list", path, "--limit", "1").err
    assert iggyflux("dead-letters", "show", path, "pottery/kilns/1@21").code == 1
    assert iggyflux("dead-letters", "show", path, "pottery").code == 2
    assert "dead letters are in its folders" in iggyflux("dead-letters", "summary", str(tmp_path.parent)).err
