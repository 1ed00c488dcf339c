import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

import lifelong
from lifelong import api
from lifelong.cli import main
from lifelong.errors import LifelongError
from lifelong.methods.registry import METHODS
from lifelong.records.distances import DistancesRecord
from lifelong.records.run import RunRecord
from lifelong.settings.fields import flag, settings_of
from lifelong.settings.training import TrainingSettings

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("run", "tune", "compare", "streams", "methods", "distances", "transfer", "reproduce")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Every test in an empty folder, with no place of data or weights set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFELONG_DATA", raising=False)
    monkeypatch.delenv("LIFELONG_WEIGHTS", raising=False)


@pytest.fixture
def started(monkeypatch):
    """What would have been run: the arguments of `api.start`, `api.start_comparison` and `api.measure`; nothing is run."""
    calls = []
    task = {"name": "[red]one", "classes": ["a", "b"], "decision": "search", "divergences": [], "alpha": 0.5, "beta": 0.75}
    summary = {"stream": "digits", "method": "par", "seed": 0, "ap": 0.5, "af": 0.0, "parameters": 10, "accuracy": [[0.5]], "tasks": [task]}
    distances = {
        "stream": "digits",
        "seed": 0,
        "tasks": ["[red]one", "two"],
        "divergences": [[], [0.3]],
        "decisions": [{"decision": "search"}, {"decision": "reuse-expert", "group": 0}],
        "notes": ["[b]n[/b]"],
    }

    def fake(result):
        def call(config, out, place, progress=True, workers=1, engine="local"):
            calls.append((config, out, place))
            return result

        return call

    record = RunRecord.model_validate(summary)
    monkeypatch.setattr(api, "start", fake(record))
    monkeypatch.setattr(api, "start_comparison", fake([record, record]))
    monkeypatch.setattr(api, "measure", fake(DistancesRecord.model_validate(distances)))
    return calls


def refused(capsys, *words):
    """The one line about a command that is refused; nothing may have been written."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lifelong: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(Path.cwd().rglob("*")) == before
    return err


def python(*words, code=None, **options):
    """A process of its own, warnings as errors left aside."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "lifelong"]), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


# Help


@pytest.mark.parametrize("words", [[], ["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_explains(capsys, words):
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "Usage: lifelong" in out
    assert err == ""


def test_help_imports_nothing_heavy():
    code = """
import io, sys
from lifelong.cli import main
shown, sys.stdout = sys.stdout, io.StringIO()
for words in [[], ["--version"], *([command, "--help"] for command in sys.argv[1:])]:
    assert main(words) == 0
assert main(["methods"]) == 0
heavy = {"torch", "numpy", "datasets", "sklearn", "matplotlib", "pyarrow", "pydantic", "safetensors"} & set(sys.modules)
print(sorted(heavy), file=shown)
"""
    out, err = python(*COMMANDS, code=code).communicate(timeout=60)
    assert (out, err) == ("[]\n", "")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{lifelong.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == lifelong.__version__


def flags_shown(out):
    """The flags of a help text, in its order."""
    return [line.split()[1] for line in out.splitlines() if line.startswith("│ --")]


@pytest.mark.parametrize(("command", "method"), [*(("run", method) for method in METHODS), ("tune", "par"), ("compare", "par")])
def test_help_with_a_method_shows_its_settings_and_no_others(capsys, monkeypatch, command, method):
    monkeypatch.setenv("COLUMNS", "1200")
    flag = "--methods" if command == "compare" else "--method"
    assert main([command, "--help", flag, method]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    mine = [item for cls in (METHODS[method].settings, TrainingSettings) for item in settings_of(cls).values()]
    for item in mine:
        (line,) = [line for line in lines if f" {item.flag} " in line]
        assert item.help in line
        assert "[default: " in line
    shown = flags_shown(out)
    # The method's own settings stand before those of training.
    assert [name for name in shown if name in {item.flag for item in mine}] == [item.flag for item in mine]
    others = {item.flag for entry in METHODS.values() for item in settings_of(entry.settings).values()}
    assert set(shown) & others == {item.flag for item in settings_of(METHODS[method].settings).values()}
    assert out.rstrip().endswith("Settings of another method: lifelong methods NAME. All methods: lifelong methods.")


@pytest.mark.parametrize("command", ["run", "tune", "compare"])
def test_help_without_a_method_shows_the_runs_flags_and_says_how_to_see_the_rest(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "1200")
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    shown = set(flags_shown(out))
    assert {"--stream", "--out", "--threads", "--epochs", "--lr"} <= shown
    assert not shown & {item.flag for entry in METHODS.values() for item in settings_of(entry.settings).values()}
    flag = "--methods NAME,NAME" if command == "compare" else "--method NAME"
    assert f"lifelong {command} {flag} --help, or lifelong methods NAME" in out


def test_help_fits_on_a_few_screens(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["run", "--help"])
    assert len(capsys.readouterr().out.splitlines()) < 100


@pytest.mark.parametrize(
    "words", ["run -h --method=lwf", "run --method lwf --help", "compare --methods lwf,par --help", "compare --help --methods lwf par"]
)
def test_help_finds_the_method_however_it_is_written(capsys, words):
    assert main(words.split()) == 0
    shown = flags_shown(capsys.readouterr().out)
    assert "--train-old-heads" in shown
    assert ("--alpha" in shown) == ("par" in words)
    assert "--gpm-threshold" not in shown


def test_help_with_an_unknown_method_says_so(capsys):
    assert main(["tune", "--method", "parr", "--help"]) == 2
    assert capsys.readouterr().err == "lifelong: --method: unknown method 'parr'; did you mean 'par'?\n"


def test_a_shared_flag_says_whose_it_is_and_where_they_differ(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    main(["compare", "--methods", "par,lwf", "--help"])
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if " --train-old-heads " in line]
    assert "[default: par: false; lwf: true]" in line
    assert any("Hyper-parameters of par, lwf" in line for line in lines[: lines.index(line)])


def test_a_shared_choice_takes_what_any_method_takes_and_the_method_refuses_the_rest(started, capsys):
    assert main(["run", "--stream", "digits", "--method", "sg-f", "--backbone", "conv4", "--out", "o"]) == 0
    assert main(["run", "--stream", "digits", "--method", "hat", "--backbone", "conv4", "--out", "o"]) != 0
    assert "backbone" in capsys.readouterr().err


# What reaches the library


def test_run_passes_everything_on(started, capsys):
    where = "--data d --weights w --device cpu --threads 2 --save-every 0.5 --download --skip-broken --tensorboard --out o"
    words = f"--stream digits --method lwf --seed 4 --preset quick {where}"
    assert (
        main(["run", *words.split(), "--epochs", "3", "--lr=0.5", "--no-augment", "--kd-weight", "2", "--weight-decay-grid", "0.1,0.2"])
        == 0
    )
    ((config, out, place),) = started
    assert (config.stream, config.method, config.seed, config.preset) == ("digits", "lwf", 4, "quick")
    assert (config.training.epochs, config.training.lr, config.training.augment) == (3, 0.5, False)
    assert config.training.weight_decay_grid == (0.1, 0.2)
    assert config.settings.kd_weight == 2.0
    assert out == Path("o")
    assert (place.data, place.weights, place.device, place.download) == (Path("d"), Path("w"), "cpu", True)
    assert place.skip_broken
    assert place.observers == ("tensorboard",)
    assert (place.threads, place.save_every) == (2, 0.5)
    assert "o/report.html" in capsys.readouterr().out


def test_places_come_from_the_environment(started, monkeypatch):
    monkeypatch.setenv("LIFELONG_DATA", "/images")
    monkeypatch.setenv("LIFELONG_WEIGHTS", "/w.safetensors")
    assert main(["run", "--stream", "digits"]) == 0
    assert main(["run", "--stream", "digits", "--data", "mine"]) == 0
    (_, _, first), (_, _, second) = started
    assert (first.data, first.weights, first.download, first.device) == (Path("/images"), Path("/w.safetensors"), False, "auto")
    assert not first.skip_broken
    assert second.data == Path("mine")


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("run --stream digits", "runs/digits-par-seed0"),
        ("run --stream my/own.toml --method lwf --seed 3", "runs/own-lwf-seed3"),
        ("compare --stream digits", "runs/digits-compare"),
        ("distances --stream digits --seed 2", "runs/digits-distances-seed2"),
    ],
)
def test_where_things_go_by_default(started, words, folder):
    assert main(words.split()) == 0
    assert started[0][1] == Path(folder)


def test_a_config_file_and_flags_over_it(started, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('stream = "digits"\nmethod = "lwf"\nseed = 7\nepochs = 5\nbatch-size = 9\n')
    assert main(["run", "--config", str(file), "--epochs", "6"]) == 0
    ((config, out, _),) = started
    assert (config.method, config.seed, config.training.epochs, config.training.batch_size) == ("lwf", 7, 6, 9)
    assert out == Path("runs/digits-lwf-seed7")


def test_compare_runs_every_method_and_seed(started):
    assert main(["compare", "--stream", "digits", "--methods", "par,lwf", "--seeds", "0,2", "--alpha", "0.1", "--epochs", "2"]) == 0
    configs = started[0][0]
    assert [(config.method, config.seed) for config in configs] == [("par", 0), ("par", 2), ("lwf", 0), ("lwf", 2)]
    assert configs[0].settings.alpha == 0.1
    assert {config.training.epochs for config in configs} == {2}


def test_runs_at_once(started, monkeypatch):
    asked = []
    begin = api.start_comparison
    monkeypatch.setattr(api, "start_comparison", lambda *given: (asked.append(given[4]), begin(*given))[1])
    assert main(["compare", "--stream", "digits", "--workers", "3"]) == 0
    lifelong.compare("digits", workers=4, progress=False)
    lifelong.compare("digits", progress=False)
    assert asked == [3, 4, 1]


def test_compare_has_defaults(started):
    assert main(["compare", "--stream", "digits"]) == 0
    assert [(config.method, config.seed) for config in started[0][0]] == [("par", 0), ("finetune", 0), ("independent", 0)]


@pytest.mark.parametrize("value", ["none", "class"])
def test_a_choice_that_is_called_none_is_a_choice(started, value):
    assert main(["distances", "--stream", "digits", "--clamp", value]) == 0
    assert started[0][0].settings.clamp == value


@pytest.mark.parametrize("command", ["run", "compare", "distances"])
def test_json_is_all_there_is_on_stdout(started, capsys, command):
    assert main([command, "--stream", "digits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found[0] if command == "compare" else found)["stream"] == "digits"


@pytest.mark.parametrize("command", ["run", "compare", "distances"])
def test_names_in_tables_are_no_markup(started, capsys, command):
    assert main([command, "--stream", "digits"]) == 0
    assert "[red]one" in capsys.readouterr().out


def test_progress_goes_to_stderr_beside_json(monkeypatch, capsys):
    def start(config, out, place, progress):
        with progress:
            progress.run_started("digits", "par", 3, 0)
        return {"ap": 1.0}

    monkeypatch.setattr(api, "start", start)
    assert main(["run", "--stream", "digits", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"ap": 1.0}
    assert err == "par on digits: 3 tasks\n"


# Lists and descriptions


def test_methods_are_listed_and_described(capsys):
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert main(["methods", "--json"]) == 0
    names = [item["name"] for item in json.loads(capsys.readouterr().out)]
    assert names == list(METHODS)
    assert all(name in listed for name in names)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_described_with_all_its_settings(capsys, name):
    assert main(["methods", name]) == 0
    text = capsys.readouterr().out
    assert main(["methods", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    own = settings_of(METHODS[name].settings)
    assert [item["name"] for item in found["settings"]] == list(own)
    for item in found["settings"] + found["training"]:
        assert item["flag"] == flag(item["name"])
        assert item["flag"] in text
    if name == "par":
        (alpha,) = [item for item in found["settings"] if item["name"] == "alpha"]
        assert alpha == {"name": "alpha", "flag": "--alpha", "accepts": "a number >= 0", "default": 0.5, "help": own["alpha"].help}


def test_streams_are_listed_and_described(capsys):
    assert main(["streams", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"digits", "cifar100-10"} <= {item["name"] for item in listed}
    assert main(["streams", "digits", "--json"]) == 0
    stream = json.loads(capsys.readouterr().out)
    assert stream["name"] == "digits"
    assert len(stream["tasks"]) >= 6
    assert main(["streams", "digits"]) == 0
    text = capsys.readouterr().out
    assert all(task["name"] in text for task in stream["tasks"])


# Bad input


@pytest.mark.parametrize(
    ("words", "parts"),
    [
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


# Stopping


def test_ctrl_c(monkeypatch, capsys):
    def start(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "start", start)
    assert main(["run", "--stream", "digits"]) == 130
    assert capsys.readouterr().err == "lifelong: stopped; the same command continues\n"


def test_sigterm_runs_the_clean_up_and_the_handler_is_put_back(monkeypatch, capsys):
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)

    def start(*arguments):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(api, "start", start)
    assert main(["run", "--stream", "digits"]) == 143
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before
    assert "the same command continues" in capsys.readouterr().err


def test_outside_the_main_thread_signals_are_left_alone(started):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["run", "--stream", "digits"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_reader_that_goes_away_is_no_trouble():
    code = "import sys; from lifelong.cli import main; sys.stdin.readline(); sys.exit(main(['methods', 'par']))"
    process = python(code=code, stdin=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write("go\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) != 0


def test_python_m_lifelong_passes_the_exit_code_on():
    process = python("methods", "paar")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "lifelong: unknown method 'paar'; did you mean 'par'?\n"


# All of it


TINY = """
name = "tiny"
image_size = 8
[[task]]
name = "low"
source = "digits"
classes = [0, 1]
train_per_class = 8
valid_per_class = 4
test_per_class = 4
[[task]]
name = "high"
source = "digits"
classes = [8, 9]
train_per_class = 8
valid_per_class = 4
test_per_class = 4
"""


def test_run_compare_and_distances_on_real_digits(capsys, monkeypatch):
    Path("tiny.toml").write_text(TINY)
    size = ["--extractor", "pixels", "--epochs", "1", "--search-epochs", "1", "--init-channels", "2", "--batch-size", "8"]
    command = ["run", "--stream", "tiny.toml", "--out", "par", *size]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ("low", "high", "search", "AP", "AF", "report: par/report.html"))
    summary = json.loads(Path("par/summary.json").read_text())
    assert summary["complete"]
    assert Path("par/report.html").stat().st_size > 1000

    # One report of a run is enough to see that it is written, and drawing takes long.
    reported = []
    monkeypatch.setattr("lifelong.report.html.write_report", lambda out, summary: reported.append(out))
    assert main([*command, "--json"]) == 0  # finished: only read
    out, err = capsys.readouterr()
    assert json.loads(out) == summary
    assert "finished before" in err
    assert main(["run", "--config", "par/config.toml", "--out", "par", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summary
    line = refused(capsys, *command, "--lr", "0.5")
    assert "par" in line
    assert "lr" in line

    words = ["--stream", "tiny.toml", "--methods", "finetune,independent", "--out", "both", "--backbone", "cells", "--epochs", "1"]
    assert main(["compare", *words, "--init-channels", "2", "--batch-size", "8"]) == 0
    out = capsys.readouterr().out
    assert all(part in out for part in ("finetune", "independent", "report: both/report.html"))
    assert Path("both/report.html").exists()
    assert reported[-2:] == [Path("both/finetune-seed0"), Path("both/independent-seed0")]
    assert main(["compare", "par", "both/finetune-seed0", "--json"]) == 0
    assert [found["method"] for found in json.loads(capsys.readouterr().out)] == ["par", "finetune"]

    assert main(["distances", "--stream", "tiny.toml", "--extractor", "pixels", "--out", "far"]) == 0
    assert "heat map: far/distances.png" in capsys.readouterr().out
    measured = json.loads(Path("far/distances.json").read_text())
    assert measured["divergences"][1] == pytest.approx(summary["tasks"][1]["divergences"])
    assert Path("far/distances.png").read_bytes().startswith(b"\x89PNG")


# The public names


def test_importing_the_package_is_light_and_every_public_name_is_there():
    code = "import sys, lifelong; print('torch' in sys.modules); print([n for n in lifelong.__all__ if getattr(lifelong, n) is None])"
    out, err = python(code=code).communicate(timeout=60)
    assert (out, err) == ("False\n[]\n", "")
    assert set(lifelong.__all__) <= set(dir(lifelong))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lifelong.nothing


def test_tuning_reaches_the_library(started, capsys):
    words = ["--stream", "digits", "--method", "lwf", "--grid", "lr=0.1,0.2 kd-weight=1", "--tolerance", "0.1", "--epochs", "2"]
    assert main(["tune", *words]) == 0
    lifelong.tune("digits", "lwf", grid={"lr": [0.1, 0.2], "kd_weight": [1]}, tolerance=0.1, epochs=2, progress=False)
    (config, out, _), python_call = started
    assert python_call[:2] == (config, out)
    assert config.tuning.grid == (("lr", (0.1, 0.2)), ("kd_weight", (1.0,)))
    assert (config.tuning.tolerance, config.training.epochs, out) == (0.1, 2, Path("runs/digits-lwf-tuned-seed0"))
    with pytest.raises(LifelongError, match="nothing to tune"):
        lifelong.tune("digits", "lwf")
    Path("plain.toml").write_text("lr = 0.5")
    with pytest.raises(LifelongError, match="nothing to tune"):
        lifelong.tune("digits", "lwf", config="plain.toml")


def test_a_comparison_tunes_every_method_alike(started):
    assert main(["compare", "--stream", "digits", "--methods", "lwf,finetune", "--grid", "lr=0.1,0.2 kd-weight=1,2"]) == 0
    ((configs, _, _),) = started
    assert [config.tuning.keys for config in configs] == [("lr", "kd_weight"), ("lr",)]


def test_python_functions_take_what_the_commands_take(started):
    summary = lifelong.run("digits", "lwf", 1, out="o", preset="quick", epochs=2, kd_weight=3, data="d", device="cpu", progress=False)
    ((config, out, place),) = started
    assert (config.method, config.seed, config.training.epochs, config.settings.kd_weight) == ("lwf", 1, 2, 3.0)
    assert (out, place.data, place.device, place.observers) == (Path("o"), Path("d"), "cpu", ())
    assert summary["ap"] == 0.5
    with pytest.raises(LifelongError, match="did you mean 'epochs'"):
        lifelong.run("digits", epoch=2)
