"""Shell completion: the script that is installed, and what bash makes of it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cyclopts import App

from lifelong.cli import main
from tests.cli.processes import refused

ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
COMPREPLY=()
_lifelong
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "lifelong.bash"
    assert main(["--install-completion", "--shell", "bash", "--output", str(file)]) == 0
    return file


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here to complete with")
@pytest.mark.parametrize(
    ("words", "wanted", "unwanted"),
    [
        (["lifelong", ""], {"run", "learn", "predict", "verify"}, {"--stream"}),
        (["lifelong", "re"], {"report", "reproduce"}, {"run"}),
        (["lifelong", "run", "--se"], {"--seed", "--search-epochs"}, {"--stream"}),
        (["lifelong", "predict", "runs/par", "--infer", ""], {"auto", "method", "confidence"}, {"run"}),
        (["lifelong", "run", "--seed", "1", "--str"], {"--stream"}, {"run"}),
    ],
)
def test_bash_completes(script: Path, words: list[str], wanted: set[str], unwanted: set[str]) -> None:
    done = subprocess.run(["bash", "-c", ASK, "ask", str(script), *words], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert wanted <= found
    assert not unwanted & found


def test_it_is_installed_where_the_shell_looks(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(App, "generate_completion", lambda self, **given: "# the script, which takes seconds to make\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text("# mine\n")
    for _ in range(2):
        assert main(["--install-completion", "--shell", "bash"]) == 0
    file = tmp_path / ".local" / "share" / "bash-completion" / "completions" / "lifelong"
    assert capsys.readouterr().out.splitlines()[-1] == f"completion for bash: {file}; to use it now: open a new bash"
    start = (tmp_path / ".bashrc").read_text()
    assert start.startswith("# mine\n")
    assert start.count(f'. "{file}"') == 1, "once, however often it is installed"


def test_an_output_leaves_the_start_file_alone(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["--install-completion", "--shell", "fish", "--output", str(tmp_path / "lifelong.fish")]) == 0
    assert "complete -c lifelong" in (tmp_path / "lifelong.fish").read_text()
    assert not (tmp_path / "home").exists()


def test_unknown_shells_are_refused(capsys, monkeypatch) -> None:
    from cyclopts.completion import detect

    assert "--shell" in refused(capsys, "--install-completion", "--shell", "tcsh")

    def unknown() -> str:
        raise detect.ShellDetectionError

    monkeypatch.setattr(detect, "detect_shell", unknown)
    assert "give --shell bash, zsh or fish" in refused(capsys, "--install-completion")
