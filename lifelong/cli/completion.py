"""The command that installs completion of commands and flags for the user's shell."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lifelong.cli.commands import app
from lifelong.cli.flags import ONE
from lifelong.errors import LifelongError, one_line

Shell = Literal["bash", "zsh", "fish"]


@app.command(name="--install-completion", usage="Usage: lifelong --install-completion [FLAGS]")
def install_completion(
    *,
    shell: Annotated[Shell | None, Parameter(help="the shell [default: the one that runs this command]"), ONE] = None,
    output: Annotated[
        Path | None, Parameter(help="write the script to this file alone, and leave the shell's start file as it is"), ONE
    ] = None,
) -> None:
    """Install completion of commands and flags for bash, zsh or fish; new shells have it. After an update, run it again."""
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        found = shell or detect_shell()
    except ShellDetectionError:
        found = ""
    if found not in ("bash", "zsh", "fish"):
        raise LifelongError(f"completion: {found or 'the shell of this command'} is not known; give --shell bash, zsh or fish")
    file = app.install_completion(shell=found, output=output, add_to_startup=output is None)
    use = f"source {file}" if output is not None else f"open a new {found}"
    print(one_line(f"completion for {found}: {file}; to use it now: {use}"))
