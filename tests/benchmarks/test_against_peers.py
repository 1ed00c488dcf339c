import sys

import pytest
import torch

from benchmarks import against_peers
from benchmarks.peers.job import Job, PlainResNet
from lifelong.networks.resnet import LightResNet

TINY = Job("finetune", channels=4, tasks=2, classes=2, train=8, valid=4, test=4, size=8, epochs=1, batch=4)


def test_without_an_interpreter_avalanche_is_left_out_and_that_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("LIFELONG_PEERS", raising=False)
    monkeypatch.setattr(against_peers, "ROOT", tmp_path)
    raced = []
    monkeypatch.setattr(against_peers, "race", lambda job, interpreter, module: raced.append(module) or {"name": module})
    assert against_peers.main(quick=True) == [{"name": "plain_loop"}]
    assert raced == ["plain_loop"]
    said = capsys.readouterr().err
    assert "AVALANCHE IS LEFT OUT" in said
    assert "pip install -r benchmarks/peers/requirements.txt" in said


def test_with_an_interpreter_both_are_raced(monkeypatch, tmp_path):
    python = tmp_path / ".peers" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.delenv("LIFELONG_PEERS", raising=False)
    monkeypatch.setattr(against_peers, "ROOT", tmp_path)
    monkeypatch.setattr(against_peers, "race", lambda job, interpreter, module: {"job": job, "with": (interpreter, module)})
    rows = against_peers.main()
    assert {row["job"].method for row in rows if row["with"] == (python, "avalanche_side")} == set(against_peers.METHODS)
    assert any(row["with"] == (sys.executable, "plain_loop") for row in rows)


def test_a_named_interpreter_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFELONG_PEERS", str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError, match=r"LIFELONG_PEERS=.*no such file"):
        against_peers.peers_interpreter()


def test_what_two_sides_say_becomes_a_row():
    openings = [
        {"versions": {"lifelong": "1"}, "features": [1.0, 2.0]},
        {"versions": {"avalanche-lib": "0.6.0", "torch": "2.13.0"}, "features": [1.0, 2.0001]},
    ]
    ours = [{"processor_s": 1.0, "wall_s": 2.0}, {"processor_s": 3.0, "wall_s": 3.0}, {"accuracy": 0.5, "process_s": 6.0}]
    theirs = [{"processor_s": 4.0, "wall_s": 4.0}, {"processor_s": 4.0, "wall_s": 5.0}, {"accuracy": 0.25, "process_s": 9.0}]
    row = against_peers.row(Job("ewc", channels=16), "avalanche_side", openings, [ours, theirs])
    assert row["name"] == "ewc against Avalanche, C=16"
    assert (row["ours_s"], row["plain_s"], row["ratio"]) == (4.0, 8.0, 2.0)
    assert row["parity"] == pytest.approx(0.0001 / 2.0001)
    assert "avalanche-lib 0.6.0, torch 2.13.0" in row["detail"]
    assert "wall time: 1.80" in row["detail"]
    assert "whole processes 6 against 9 s; mean accuracy 0.50 against 0.25" in row["detail"]


def test_networks_that_differ_are_not_raced():
    openings = [{"versions": {}, "features": [1.0]}, {"versions": {}, "features": [1.1]}]
    heard = [{"processor_s": 1.0, "wall_s": 1.0}, {"accuracy": 1.0, "process_s": 1.0}]
    with pytest.raises(AssertionError, match=r"differ by 0\.091"):
        against_peers.row(TINY, "plain_loop", openings, [heard, heard])


@pytest.mark.slow
def test_two_sides_learn_by_turns():
    row = against_peers.race(TINY, sys.executable, "plain_loop")
    assert row["parity"] < 1e-5
    assert row["ours_s"] > 0
    assert row["ratio"] == pytest.approx(row["plain_s"] / row["ours_s"])


def test_a_side_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"ended early: .*No module named benchmarks\.peers\.nowhere"):
        against_peers.Side(sys.executable, "nowhere", TINY)


@pytest.mark.parametrize("stem_pool", [False, True])
def test_the_plain_network_is_ours(stem_pool):
    ours, plain = LightResNet(8, stem_pool), PlainResNet(8, stem_pool)
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(plain(images), ours(images), check_stride=False)
