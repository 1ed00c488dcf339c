"""Bad input is one line, and exit code 2."""

import errno
import os
from pathlib import Path

import pytest

from lifelong import api
from lifelong.cli import main
from lifelong.errors import LifelongError, of_system
from tests.cli.processes import refused


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("streams folder:photos --seed -1", ["--seed -1", ">= 0"]),
        ("rnu --stream digits", ["rnu", "run"]),
        ("--zzz", ["unknown flag --zzz", "lifelong --help"]),
        ("run --stream digits --epoch 3", ["--epoch", "--epochs"]),
        ("run --stream digits --zzz 3", ["--zzz", "lifelong run --help"]),
        ("run digits", ["'digits'", "lifelong run --help"]),
        ("run --stream", ["--stream needs a value"]),
        ("run --stream digits --epochs", ["--epochs needs a value"]),
        ("run", ["--stream"]),
        ("run --stream digits --epochs ten", ["--epochs", "an integer", "'ten'"]),
        ("run --stream digits --epochs 3.5", ["--epochs", "an integer", "'3.5'"]),
        ("run --stream digits --epochs none", ["--epochs", "an integer", "'none'"]),
        ("run --stream digits --epochs 0", ["--epochs 0", ">= 1"]),
        ("run --stream digits --lr fast", ["--lr", "fast"]),
        ("run --stream digits --lr nan", ["--lr", "a number > 0"]),
        ("run --stream digits --lr -1", ["--lr -1", "a number > 0"]),
        ("run --stream digits --augment maybe", ["'maybe'"]),
        ("run --stream digits --clamp par", ["--clamp", "pair"]),
        ("run --stream digits --weight-decay-grid 0.1,x", ["--weight-decay-grid", "0.1,x"]),
        ("run --stream digits --epochs 1 --epochs 2", ["--epochs", "multiple times"]),
        ("run --stream digits --device gpu", ["--device gpu", "'cuda'"]),
        ("run --stream digits --device cuda:x", ["--device cuda:x", "'x' is not a device number"]),
        ("run --stream digits --device", ["--device needs a value"]),
        ("compare --stream digits --device cuda:-1", ["--device cuda:-1", "'-1' is not a device number"]),
        ("distances --stream digits --device mps:0", ["--device mps:0", "no number"]),
        ("predict run image.png --device gpu", ["--device gpu", "'cuda'"]),
        ("run --stream digits --threads 1.5", ["--threads", "an integer", "'1.5'"]),
        ("run --stream digits --threads -1", ["--threads -1", ">= 0"]),
        ("run --stream digits --save-every nan", ["--save-every nan", ">= 0"]),
        ("run --stream digits --seed x", ["--seed", "'x'"]),
        ("run --stream digits --seed -1", ["--seed -1", ">= 0"]),
        ("run --stream digits --method parr", ["'parr'", "'par'"]),
        ("run --stream digits --method none", ["'none'"]),
        ("run --stream digits --preset quik", ["quik", "'quick'"]),
        ("run --stream digits --method finetune --alpha 0.1", ["--alpha is a setting of par, not of finetune"]),
        ("run --stream digits --beta 0.1", ["--beta", "alpha = 0.5"]),
        ("run --stream digits --config no.toml", ["no.toml", "No such file"]),
        ("tune --stream digits", ["--grid"]),
        ("tune --stream digits --grid", ["--grid needs a value"]),
        ("tune --stream digits --grid epoch=1,2", ["--grid", "did you mean 'epochs'?"]),
        ("tune --stream digits --grid cells=1,2", ["cells cannot be tuned: it must be the same for all tasks"]),
        ("tune --stream digits --grid lr=0.1 --tolerance much", ["--tolerance", "'much'"]),
        ("tune --stream digits --tolerance 0.1", ["--tolerance 0.1", "--grid"]),
        ("run --stream digits --grid lr=0.1,1", ["--grid"]),
        ("compare a b --grid lr=0.1,1", ["finished runs"]),
        ("compare --stream digits --methods par,lfw", ["'lfw'", "'lwf'"]),
        ("compare --stream digits --methods par,par", ["--methods par,par", "twice"]),
        ("compare --stream digits --methods finetune,lwf --alpha 1", ["--alpha", "finetune, lwf"]),
        ("compare --stream digits --seeds 0,a", ["--seeds", "0,a"]),
        ("compare a b --stream digits", ["finished runs", "--out"]),
        ("compare a b --epochs 3", ["finished runs"]),
        ("compare a b", ["a"]),
        ("streams digit", ["'digit'", "'digits'"]),
        ("streams none.toml", ["none.toml"]),
        ("streams digits --seed x", ["--seed"]),
        ("methods paar", ["'paar'", "'par'"]),
        ("distances", ["--stream"]),
        ("distances --stream digits --epochs 3", ["--epochs"]),
        ("run --stream digist", ["'digist'", "'digits'"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, words, parts):
    line = refused(capsys, *words.split())
    for part in parts:
        assert part in line


def test_an_error_of_several_lines_is_printed_as_one(monkeypatch, capsys):
    def start(*arguments):
        raise LifelongError("one\n  two")

    monkeypatch.setattr(api, "start", start)
    assert refused(capsys, "run", "--stream", "digits") == "lifelong: one two\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def start(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(api, "start", start)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--stream", "digits"])


@pytest.mark.parametrize("command", ["predict", "verify", "history", "report"])
def test_a_file_is_not_a_run(capsys, command):
    Path("s.png").write_bytes(b"x")
    words = ("s.png", "run") if command == "predict" else ("s.png",)
    assert refused(capsys, command, *words) == "lifelong: s.png is a file, not a run; give the run directory first\n"


@pytest.mark.parametrize("command", ["verify", "report", "history"])
@pytest.mark.parametrize("inner", ["par-seed0", "digits/par-seed0"])
def test_a_folder_of_runs_is_not_a_run(capsys, command, inner):
    Path("all", inner, "checkpoint").mkdir(parents=True)
    said = f"lifelong: all holds no run; its folders do: give one of them, such as {Path('all', inner)}\n"
    assert refused(capsys, command, "all") == said


@pytest.mark.parametrize(
    ("number", "name", "words"),
    [
        (errno.ENOSPC, None, "cannot write the output: No space left on device; free space there"),
        (errno.ENOSPC, "a.csv", "a.csv: No space left on device; free space there"),
        (errno.EIO, None, "cannot read or write: Input/output error; check the disk, and where the output goes"),
        (errno.EACCES, "a.csv", "a.csv: Permission denied; give another path, or make this one readable"),
    ],
)
def test_errors_of_the_system(number, name, words):
    assert str(of_system(OSError(number, os.strerror(number), name))) == words
