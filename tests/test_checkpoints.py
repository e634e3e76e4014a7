"""Checkpoints: the old one or the new one, never a third; locks: one owner."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iggyflux.checkpoints import read_checkpoint, write_checkpoint
from iggyflux.errors import Stopped

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.mktemp("c") / "a" / "x.json"

    write_checkpoint(path, "test", content)

    assert read_checkpoint(path, "test") == content
    assert list(path.parent.iterdir()) == [path]


def test_nothing_written_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "x.json", "test") is None


def test_every_damaged_byte_stops_with_the_file_and_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_checkpoint(path, "test", {"a": [1, 2, 3]})
    whole = path.read_bytes()
    for at in range(len(whole) - 1):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(Stopped) as stopped:
            read_checkpoint(path, "test")

        assert stopped.value.code == "IFX701"
        assert str(path) in stopped.value.reason
        assert stopped.value.hint


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_a_cut_checkpoint_stops(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.json"
    write_checkpoint(path, "test", 1)
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(Stopped):
        read_checkpoint(path, "test")


def test_another_kind_and_a_newer_version_stop(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_checkpoint(path, "test", 1)

    with pytest.raises(Stopped, match="it holds 'test', not 'other'"):
        read_checkpoint(path, "other")
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(Stopped, match="it has version 2, and this program knows 1"):
        read_checkpoint(path, "test")


def test_a_folder_that_cannot_be_written_stops_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_checkpoint(path, "test", 1)
    beside = tmp_path / f"x.json.{os.getpid()}.new"
    beside.mkdir()

    with pytest.raises(Stopped, match="cannot store the positions"):
        write_checkpoint(path, "test", 2)
    assert read_checkpoint(path, "test") == 1


def write_for_ever(path: Path) -> None:
    for number in range(1_000_000):
        write_checkpoint(path, "test", {"number": number, "padding": "x" * (number % 5000)})


def test_a_writer_that_is_killed_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        writer = context.Process(target=write_for_ever, args=(path,))
        writer.start()
        before = None
        for _ in range(200_000):
            content = read_checkpoint(path, "test")
            if content is not None and content["number"] > 20 and content != before:
                break
            before = content
        writer.kill()
        writer.join()

        content = read_checkpoint(path, "test")
        assert content["padding"] == "x" * (content["number"] % 5000)
