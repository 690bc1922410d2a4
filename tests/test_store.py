from __future__ import annotations

import dataclasses
import errno
import json
import os

import pytest
from pydantic import TypeAdapter

from harness import store
from harness.errors import BadRow, CannotWrite
from harness.records import Failed, Row
from tests import rows


def edited(path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    "row",
    [
        rows.row(),
        rows.row("mcsd", "110m", "int4", workload="tg64 @ d4096", threads=2),
        dataclasses.replace(rows.row(), seconds=Failed(reason="worker died"), quality=None),
    ],
)
def test_a_row_comes_back_as_it_went_in(tmp_path, row):
    path = store.write(tmp_path, row)
    assert store.load(path) == row
    assert store.read(tmp_path) == ([row], [])


def test_writing_the_same_inputs_again_replaces_the_row(tmp_path):
    first, second = rows.row(seed=1), rows.row(seed=2)
    assert store.write(tmp_path, first) == store.write(tmp_path, second)
    assert store.read(tmp_path)[0] == [second]


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe_hash": "other"},
        {"checkpoint_hash": "other"},
        {"workload": "tg128"},
        {"engine": "torch"},
        {"threads": 2},
        {"device": "rpi5"},
        {"kernel_hash": "other"},
        {"quick": True},
        {"environment": rows.environment("another")},
    ],
)
def test_every_input_is_in_the_name(changes):
    names = {
        store.file_name(store.key_of(row))
        for row in (rows.row(), dataclasses.replace(rows.row(), **changes))
    }
    assert len(names) == 2


def test_names_are_readable_and_safe_on_every_file_system():
    row = rows.row("mcsd+selective", "nano", "prune50+int8", workload="tg64 @ d1024")
    name = store.file_name(store.key_of(row))
    assert name.startswith("mcsd-selective-nano-prune50-int8_tg64-d1024_1t_workbench_")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_has_knows_finished_rows_only(tmp_path):
    row = rows.row()
    assert not store.has(tmp_path, store.key_of(row))
    path = store.write(tmp_path, row)
    assert store.has(tmp_path, store.key_of(row))
    path.write_text(path.read_text()[:100])
    assert not store.has(tmp_path, store.key_of(row))


def test_rows_of_another_machine_merge_by_copying_their_folder(tmp_path):
    store.write(tmp_path, rows.row())
    store.write(tmp_path / "board" / "rows", rows.row(host="board"))
    found, problems = store.read(tmp_path)
    assert {row.environment.host for row in found} == {"workbench", "board"}
    assert problems == []


def test_of_two_files_with_the_same_inputs_the_newest_is_read(tmp_path):
    old = dataclasses.replace(
        rows.row(), seed=7, environment=rows.environment(started="2024-01-01T00:00:00+00:00")
    )
    store.write(tmp_path, rows.row())
    store.write(tmp_path / "z", old)
    assert store.read(tmp_path) == ([rows.row()], [])


def test_latest_prefers_full_rows_and_then_newer_code():
    old = rows.row()
    new = dataclasses.replace(
        old, kernel_hash="b", environment=rows.environment(started="2026-01-01T00:00:00+00:00")
    )
    quick = dataclasses.replace(new, quick=True)
    assert store.latest([new, old, quick]) == [new]


def test_bad_files_are_named_and_the_rest_is_read(tmp_path):
    store.write(tmp_path, rows.row())
    (tmp_path / "a.json").write_text('{"schema": 1, "candi')
    (tmp_path / "b.json").write_text("[1, 2]")
    (tmp_path / "c.json").write_bytes(b"\xff\xfe")
    found, problems = store.read(tmp_path)
    assert len(found) == 1
    assert [p.split(":")[0].rsplit("/", 1)[-1] for p in problems] == ["a.json", "b.json", "c.json"]
    assert all("\n" not in p for p in problems)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99, expected 1"),
        ({"tokens": "64"}, "tokens: .*integer.*found '64'"),
        ({"compile_seconds": float("nan")}, "compile_seconds is not a finite number"),
        ({"phase": "training"}, "phase: .*found 'training'"),
        ({"seconds": {"kind": "measured", "samples": [-1.0], "method": "x"}}, "samples must be"),
        ({"seconds": {"kind": "guessed"}}, "seconds"),
    ],
)
def test_a_wrong_field_is_refused_with_what_would_be_right(tmp_path, changes, message):
    path = store.write(tmp_path, rows.row())
    edited(path, **changes)
    with pytest.raises(BadRow, match=message) as caught:
        store.load(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    path = store.write(tmp_path, rows.row())
    content = json.loads(path.read_text())
    del content["threads"]
    path.write_text(json.dumps(content))
    with pytest.raises(BadRow, match="threads: Field required"):
        store.load(path)


def test_a_full_disk_leaves_the_old_row_and_no_debris(tmp_path, monkeypatch):
    row = rows.row(seed=1)
    store.write(tmp_path, row)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="No space left on device") as caught:
        store.write(tmp_path, rows.row(seed=2))
    assert "\n" not in str(caught.value)
    assert store.read(tmp_path) == ([row], [])
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_a_file_gives_one_line(tmp_path):
    (tmp_path / "rows").write_text("")
    with pytest.raises(CannotWrite, match="cannot write"):
        store.write(tmp_path / "rows", rows.row())


def test_projected_times_are_never_stored(tmp_path):
    with pytest.raises(BadRow, match="projections are computed"):
        store.write(tmp_path, rows.row(device="rpi5"))


def test_a_number_that_is_not_finite_is_never_stored(tmp_path):
    with pytest.raises(BadRow, match="compile_seconds"):
        store.write(tmp_path, dataclasses.replace(rows.row(), compile_seconds=float("inf")))
    assert list(tmp_path.iterdir()) == []


def test_quick_rows_are_refused_for_publishing():
    store.refuse_quick([rows.row()])
    with pytest.raises(BadRow, match="1 of 2 rows were made with --quick"):
        store.refuse_quick([rows.row(), rows.row(quick=True)])


def test_the_schema_names_every_field_of_a_row():
    schema = store.json_schema()
    assert set(schema["properties"]) == {field.name for field in dataclasses.fields(Row)}
    assert schema == TypeAdapter(Row).json_schema()
