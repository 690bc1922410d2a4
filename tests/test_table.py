from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pytest

from harness import frame, plugins, publish, table
from harness.errors import BadRow, UnknownName
from harness.metrics import fraction_of_limit
from harness.records import Failed, Measured
from tests import rows


def metric(name, row):
    return plugins.metrics()[name].value(row)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.234e-5, "12.3 µs"),
        (0.9999, "1.00 s"),
        (0.9994, "999 ms"),
        (0, "0 s"),
        (1, "1.00 s"),
        (1000, "1.00 ks"),
        (2.5e-9, "2.50 ns"),
        (3.2e-16, "0.000320 ps"),
    ],
)
def test_seconds_have_three_digits_and_a_prefix(value, text):
    assert table.si(value, "s") == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (64 * 2**20, "64.0 MiB"),
        (2**41, "2048 GiB"),
    ],
)
def test_memory_is_shown_in_binary_units(count, text):
    assert table.size(count) == text


def test_a_decode_row_gives_every_time_metric():
    row = dataclasses.replace(rows.row(), seconds=Measured(samples=(0.128,), method="pyperf"))
    assert metric("seconds_per_token", row) == 0.002
    assert metric("tokens_per_second", row) == 500
    assert metric("seconds_to_first_token", row) is None


def test_only_ttft_rows_tell_the_time_to_the_first_token():
    assert metric("seconds_to_first_token", rows.row(workload="ttft")) > 0
    assert metric("seconds_to_first_token", rows.row(workload="pp128")) is None
    assert metric("seconds_per_token", rows.row(workload="pp128")) is None


def test_a_failure_is_none_for_every_metric_of_that_quantity():
    failed = Failed(reason="worker died")
    row = dataclasses.replace(rows.row(), seconds=failed, joules=failed, resident=failed, peak=None)
    known = {name for name in plugins.metrics() if metric(name, row) is not None}
    assert known == {"bits_per_byte", "compile_seconds"}


def test_a_projection_gives_its_value():
    row = rows.row(device="rpi5")
    assert metric("seconds_per_token", row) == row.seconds.value / 64


def test_a_decode_is_held_against_memory_bandwidth():
    row = rows.row(size="110m", threads=2)
    seconds = sorted(row.seconds.samples)[14:16]
    streamed = (row.weight_bytes + row.state_bytes) * 64
    assert metric("fraction_of_limit", row) == pytest.approx(streamed / (sum(seconds) / 2) / 18e9)


def test_a_step_that_stays_in_cache_is_held_against_the_cache_and_says_so():
    row = rows.row(size="nano")
    assert fraction_of_limit.note(row) == "in cache"
    ratio = metric("fraction_of_limit", row) * 25e9 / 11e9
    streamed = row.weight_bytes + row.state_bytes
    assert ratio == pytest.approx(streamed / metric("seconds_per_token", row) / 11e9)
    assert "% cache" in table.markdown([row])
    assert "| in cache |" in table.markdown([rows.row(size="nano", threads=2)])


def test_a_prefill_is_held_against_the_peak_of_its_arithmetic():
    whole, packed = rows.row(workload="pp128"), rows.row(step="int8", workload="pp128")
    for row, peak in ((whole, 40e9), (packed, 120e9)):
        rate = row.operations / 128 * metric("tokens_per_second", row)
        assert metric("fraction_of_limit", row) == pytest.approx(rate / peak)


def test_a_projection_has_no_fraction_of_the_hosts_limit():
    assert metric("fraction_of_limit", rows.row(device="rpi5")) is None


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_terminal_table_fits_and_loses_no_candidate(width):
    given = rows.many(sizes=("nano", "110m"), workloads=("tg64", "pp128"))
    text = table.terminal(given, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    joined = "".join(text.split())
    for row in given:
        assert row.candidate.split(":")[1].split("@")[-1] in joined


def test_projections_are_marked_in_every_cell_they_fill():
    line = next(x for x in table.markdown([rows.row(device="rpi5")]).splitlines() if "rpi5" in x)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[4] == "PPP"
    assert all(cell.startswith("~") for cell in cells[5:9])
    assert "–" in cells[5]


def test_a_measured_time_beside_a_modelled_energy_keeps_both_marks():
    text = table.markdown([rows.row()])
    assert "| MPM |" in text
    assert "mJ model" in text


def test_failures_show_their_reason():
    row = rows.row("attention", "110m", "", "rpi-zero-2w")
    assert "failed" in table.terminal([row])
    assert "does not fit: needs" in table.terminal([row])
    assert "does not fit: needs" in table.markdown([row])


def test_footnotes_explain_shaky_numbers():
    text = table.terminal([rows.row(noise=0.5, workload="tg64 @ d1024")])
    assert "spread" in text
    assert "beyond trained context" in text


def test_every_table_says_that_it_speaks_of_cpu_execution():
    assert "CPU execution" in table.markdown([rows.row()])
    assert "CPU execution" in table.terminal([rows.row()])


def test_an_empty_table_is_no_error(tmp_path):
    assert "candidate" in table.markdown([])
    assert table.terminal([])
    assert frame.as_csv([]) == "\n"
    assert json.loads(frame.as_json([])) == []


def test_order_does_not_depend_on_the_order_of_arrival():
    given = rows.many(sizes=("nano",))
    assert frame.ordered(given) == frame.ordered(given[::-1])
    assert frame.ordered(given)[0].device == "host"


def test_filters_take_patterns():
    given = rows.many(sizes=("nano",))
    chosen = frame.select(given, devices=["rpi*"], candidates=["mcsd:*"], workloads=["tg64"])
    assert {row.device for row in chosen} == {"rpi5", "rpi-zero-2w"}
    assert {row.candidate.split(":")[0] for row in chosen} == {"mcsd"}
    assert {row.workload for row in chosen} == {"tg64"}


def test_a_filter_that_matches_nothing_names_what_there_is():
    with pytest.raises(UnknownName, match=r"no row has device 'rpi6'; there are: host, pixel-8"):
        frame.select(rows.many(sizes=("nano",)), devices=["rpi6"])


def test_csv_json_and_parquet_hold_the_same_numbers(tmp_path):
    import pandas as pd

    given = rows.many(sizes=("nano", "110m"), workloads=("tg64",))
    flat = json.loads(frame.as_json(given))
    comma = list(csv.DictReader(io.StringIO(frame.as_csv(given))))
    columns = pd.read_parquet(frame.parquet(given, tmp_path / "rows.parquet"))
    assert len(flat) == len(comma) == len(columns) == len(given)
    for a, b, (_, c) in zip(flat, comma, columns.iterrows(), strict=True):
        assert a["candidate"] == b["candidate"] == c["candidate"]
        value = a["seconds_per_token"]
        if value is None:
            assert b["seconds_per_token"] == ""
            assert math.isnan(c["seconds_per_token"])
        else:
            assert float(b["seconds_per_token"]) == value == c["seconds_per_token"]


def test_machine_formats_tell_measured_from_projected():
    host, board = frame.records([rows.row(), rows.row(device="rpi5")])
    assert (host["seconds_evidence"], host["joules_evidence"]) == ("measured", "projected")
    assert (board["seconds_evidence"], board["seconds_source"]) == ("projected", "roofline-1")


def test_publishing_writes_both_tables_with_the_command(tmp_path):
    paths = publish.publish([rows.row()], tmp_path, "edgewise sweep")
    assert [path.name for path in paths] == ["table.md", "table.csv"]
    assert "`edgewise sweep`" in paths[0].read_text()


def test_publishing_refuses_quick_rows(tmp_path):
    with pytest.raises(BadRow, match="without it"):
        publish.publish([rows.row(quick=True)], tmp_path, "edgewise sweep --quick")
    assert list(tmp_path.iterdir()) == []
