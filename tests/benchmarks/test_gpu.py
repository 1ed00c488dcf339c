"""The GPU benchmark, tiny and on a CPU: every part runs to its end, writes its rows and fails loudly."""

import csv
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as runner
from benchmarks import gpu
from benchmarks.gpu import card, parity, phases, steps
from benchmarks.gpu.scale import TINY
from lifelong.networks import depthwise, operations


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_every_part_runs_and_writes_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "out" / "gpu.csv"
    assert runner.main(["gpu", "--device", "cpu", "--out", str(path)]) == 0
    found = rows(path)
    assert list(dict.fromkeys(row["part"] for row in found)) == list(gpu.PARTS)
    assert not [row for row in found if row["name"] in ("failed", "skipped", "stopped")]
    assert all(row["machine"] and row["torch"] and row["date"] for row in found)
    # On one device there is nothing to differ.
    assert {row["value"] for row in found if row["part"] == "parity" and row["unit"] == "relative"} == {"0"}
    assert [float(row["value"]) for row in found if row["part"] == "resume" and row["name"].startswith("largest difference")] == [0] * 4
    assert all(float(row["value"]) > 0 for row in found if row["part"] in ("steps", "phases"))


def test_a_part_that_fails_leaves_a_row_and_the_others_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(card, "measure", broken)
    monkeypatch.setattr(phases, "measure", lambda report, *rest: report.add("phases", "something", 1.0, "s"))
    path = tmp_path / "gpu.csv"
    assert gpu.main(["--device", "cpu", "--out", str(path), "--parts", "card,phases"]) == 1
    found = {row["name"]: row for row in rows(path)}
    assert found["failed"]["detail"] == "RuntimeError: out of memory"
    assert found["something"]["value"] == "1"


def test_a_part_of_no_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        gpu.main(["--parts", "pearls"])
    assert refused.value.code == 2
    assert "pearls" in capsys.readouterr().err


def test_the_stream_stops_when_the_time_is_over(tmp_path: Path) -> None:
    path = tmp_path / "gpu.csv"
    assert gpu.main(["--device", "cpu", "--out", str(path), "--parts", "stream", "--minutes", "0"]) == 0
    assert [row["name"] for row in rows(path)] == ["stopped", "the whole part"]
    # With time, the same command continues the run whose folder lies next to the rows.
    assert (tmp_path / "gpu-digits-float32").is_dir()
    assert gpu.main(["--device", "cpu", "--out", str(path), "--parts", "stream"]) == 0
    assert [row["name"] for row in rows(path)][2:] == ["accuracy on task 1", "accuracy on task 2", "AP", "the whole part"]


def test_the_whole_stream_needs_its_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    monkeypatch.setattr(gpu, "TINY", gpu.FULL)
    path = tmp_path / "gpu.csv"
    assert gpu.main(["--device", "cpu", "--out", str(path), "--parts", "stream"]) == 0
    assert [row["name"] for row in rows(path)] == ["skipped", "the whole part"]


def test_a_difference_between_methods_is_found() -> None:
    cpu = torch.device("cpu")
    one, other = (parity.learned("finetune", cpu, 4) for _ in range(2))
    assert parity.difference(parity.logits(one, cpu), parity.logits(other, cpu)) == 0
    with torch.no_grad():
        next(other.modules(1)[0].parameters()).mul_(1.5)
    assert parity.difference(parity.logits(one, cpu), parity.logits(other, cpu)) > 1e-3


def test_traffic_counts_what_is_read_and_written() -> None:
    x = torch.zeros(10)
    with card.Traffic() as traffic:
        y = x.view(2, 5)
        y + 1
    assert (traffic.bytes, traffic.operations) == (2 * 40, 1)


def test_an_order_of_maps_is_set_and_put_back() -> None:
    before = operations.layout
    with steps.ordered("contiguous"):
        assert operations.layout(torch.zeros(1)) == depthwise.layout(torch.zeros(1)) == torch.contiguous_format
    assert operations.layout is depthwise.layout is before


def test_epochs_hold_the_steps_that_are_timed() -> None:
    assert steps.steps_of(TINY) * steps.epochs_of(TINY) >= TINY.steps
