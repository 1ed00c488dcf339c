"""The engine for Slurm: carries out runs as the jobs of an array, which go on when the sweep ends.

    --engine slurm                  with what the variables of sbatch say (SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_ACCOUNT, ...)
    --engine slurm:FILE             also with the lines of a file: `#SBATCH ...`, then commands such as `module load ...`

A job that is preempted, whose node fails, or whose time ends is queued again under the same ids, and its run continues where its folder
stands. Calling the sweep again joins jobs that are still queued, instead of submitting them once more.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from os.path import commonpath
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, one_line
from lifelong.experiment.job import RunJob, RunOutcome, ended, outcome_file, taken
from lifelong.experiment.locking import JOB
from lifelong.experiment.observer import Observer
from lifelong.opening import MOST_SETTINGS, parse_json, read_text, refuse_links
from lifelong.settings.device import parse_device
from lifelong.storage import write_text

POLL = 10.0
"""Seconds between two questions to Slurm; its controller serves everyone on the cluster."""

GRACE = 60.0
"""Seconds that an outcome may need to appear on a shared file system after its job has left the queue."""

NOTICE = 120
"""Seconds before the end of its time at which a job is told, to be queued again."""

MOST_JOBS = 1001
"""Size of the largest array where Slurm does not say otherwise."""

LIMIT = 60.0
"""Seconds that Slurm may take to answer."""

SUBMITTED = "submitted.jsonl"

OURS = re.compile(r"\s*#SBATCH\s+(-a\b|--(array|requeue|no-requeue|output|error|open-mode|wrap)\b)")
"""Lines that a file may not have, because the script sets what they would."""


def of_file(file: str) -> Callable[[], "OnSlurm"]:
    """Return what makes the engine with the lines of a file.

    Raises:
        LifelongError: the file cannot be read, or has lines that the script sets itself.
    """
    path = Path(file)
    try:
        head = read_text(path, MOST_SETTINGS)
    except (OSError, UnicodeDecodeError) as error:
        raise LifelongError(f"--engine slurm:{file}: cannot read it: {getattr(error, 'strerror', None) or error}") from error
    for line in head.splitlines():
        if OURS.match(line):
            raise LifelongError(f"{path}: '{line.strip()}': this is set for every sweep; leave the line out")
    return lambda: OnSlurm(head)


class OnSlurm:
    """Carries out jobs as the jobs of an array.

    Args:
        head: lines for the script: `#SBATCH` with options, then commands of the shell.
    """

    def __init__(self, head: str = "") -> None:
        self.head = head

    def check(self) -> None:
        """Check that the commands of Slurm are here.

        Raises:
            LifelongError: one is not.
        """
        for tool in ("sbatch", "squeue", "scontrol"):
            if shutil.which(tool) is None:
                raise LifelongError(f"--engine slurm: there is no {tool} on this machine; run the command where Slurm jobs are submitted")

    def run(self, jobs: Sequence[RunJob], workers: int, begin: Callable[[int], Observer]) -> Iterator[tuple[int, RunOutcome]]:
        """See `lifelong.experiment.engine.Engine.run`. If the generator is closed, the jobs go on; an observer is told when its run begins
        and has finished.
        """
        self.check()
        folder = _folder(jobs)
        going = _joined(jobs, folder)
        rest = []
        for position, job in enumerate(jobs):
            if position in going:
                continue
            if (outcome := taken(job)) is not None:
                yield position, outcome
            else:
                rest.append(position)
        going |= _submitted(jobs, rest, folder, self.head, workers)
        observers: dict[int, Observer] = {}
        try:
            while going:
                states = _states({queued.array for queued in going.values()})
                for position, queued in list(going.items()):
                    state = states.get(queued.array, {}).get(queued.index)
                    outcome = queued.outcome(state, known=queued.array in states)
                    if position not in observers and (outcome is not None or state == "RUNNING"):
                        observers[position] = begin(position)
                    if outcome is None:
                        continue
                    del going[position]
                    if outcome.summary is not None:
                        observers[position].run_finished(outcome.summary)
                    yield position, outcome
                if going:
                    time.sleep(POLL)
        finally:
            if going:
                arrays = ",".join(sorted({queued.array for queued in going.values()}))
                print(f"lifelong: the jobs of {arrays} go on in Slurm; scancel {arrays} would end them", file=sys.stderr)


@dataclass
class _Queued:
    """A job that Slurm has.

    Attributes:
        job: what it carries out.
        array: number of its array.
        index: its place in the array.
        file: the job's file, next to which it writes its outcome.
        gone: since when it is neither queued nor running, by the clock of `time.monotonic`; None: it was, the last time.
    """

    job: RunJob
    array: str
    index: int
    file: Path
    gone: float | None = field(default=None)

    def outcome(self, state: str | None, known: bool) -> RunOutcome | None:
        """Return the outcome if the job has ended; None: it is still queued or running, or may be.

        Args:
            state: its state in the queue; None: it is not there.
            known: whether Slurm has answered.
        """
        if not known or state not in (None, "COMPLETING"):
            self.gone = None
            return None
        if outcome_file(self.file).exists():
            return self.job.outcome(self.file)
        self.gone = self.gone or time.monotonic()
        if state is not None or time.monotonic() - self.gone < GRACE:
            return None
        how = _how_it_ended(self.array, self.index)
        log = self.file.parent / f"{self.array}_{self.index}.log"
        return RunOutcome(None, f"{ended(self.job.out, how).partition(' (')[0]}; see {log}; run the same command again")


def _folder(jobs: Sequence[RunJob]) -> Path:
    """Return the folder for scripts and logs, next to the runs, which all nodes see."""
    return Path(commonpath([(job.folder / job.out).absolute().parent for job in jobs])) / "slurm"


def _submitted(jobs: Sequence[RunJob], positions: Sequence[int], folder: Path, head: str, workers: int) -> dict[int, _Queued]:
    """Submit jobs, as many arrays as their number needs, one after the other."""
    found: dict[int, _Queued] = {}
    before: str | None = None
    most = _most_jobs() if positions else 1
    for start in range(0, len(positions), most):
        part = positions[start : start + most]
        place = _new_folder(folder)
        files = [place / f"{index}.json" for index in range(len(part))]
        for file, position in zip(files, part, strict=True):
            # A job has an allocation of its own, and shares its cores with no other.
            job = jobs[position]
            replace(job, environment=replace(job.environment, at_once=1)).command(file)
        text = script(place, len(part), workers, jobs[part[0]], head)
        write_text(place / "job.sh", text)
        options = [] if before is None else [f"--dependency=afterany:{before}"]
        before = _submit([*options, str(place / "job.sh")])
        runs = [str(_run(jobs[position])) for position in part]
        with (folder / SUBMITTED).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"array": before, "folder": place.name, "runs": runs}) + "\n")
        found |= {position: _Queued(jobs[position], before, index, files[index]) for index, position in enumerate(part)}
    return found


def script(place: Path, number: int, workers: int, job: RunJob, head: str) -> str:
    """Return the script of an array.

    Args:
        place: folder of its jobs' files, `0.json` and so on, and of its logs.
        number: of jobs.
        workers: how many of them run at once.
        job: one of them, for its device and its threads.
        head: more lines, see `OnSlurm`; its options override those above them.
    """
    threads, (kind, _) = job.environment.threads, parse_device(job.environment.device)
    lines = head.splitlines()
    options = [line.strip() for line in lines if line.lstrip().startswith("#SBATCH")]
    own = [
        "--job-name=lifelong",
        f"--array=0-{number - 1}%{workers}",
        "--requeue",
        "--open-mode=append",
        f"--output={_in_pattern(place)}/%A_%a.log",
        f"--signal=B:USR1@{NOTICE}",
        *([f"--cpus-per-task={threads}"] if threads else []),
        *(["--gres=gpu:1"] if kind == "cuda" and not any("gpu" in line for line in options) else []),
    ]
    commands = [line for line in lines if not line.lstrip().startswith(("#SBATCH", "#!"))]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in own),
            *options,
            *commands,
            _BODY.format(job=JOB, folder=shlex.quote(str(job.folder)), python=shlex.quote(sys.executable), place=shlex.quote(str(place))),
        ]
    )


_BODY = """
# By the array and the place in it: the number of a job alone may be that of its whole array, which would be queued again.
me="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
export {job}="$me"
stop() {{
    kill -TERM "$run" 2> /dev/null
    wait "$run"
}}
# Near the end of its time: what is learned stands on disk, and the same job goes on later.
trap 'trap "" TERM; stop; scontrol requeue "$me"; exit 143' USR1
# Preempted, or queued again by others.
trap 'stop; exit 143' TERM
cd {folder} || exit 2
{python} -m lifelong.experiment {place}/"$SLURM_ARRAY_TASK_ID".json &
run=$!
wait "$run"
"""


def _in_pattern(path: Path) -> str:
    """Write a path into a pattern of file names of Slurm, for which % and \\ have a meaning.

    Raises:
        LifelongError: it cannot be written in a line of options.
    """
    text = str(path)
    if re.search(r"[\s\\\"'#]", text):
        raise LifelongError(f"{text}: Slurm needs a folder without spaces, quotes, # and backslashes; choose another --out")
    return text.replace("%", "%%")


def _joined(jobs: Sequence[RunJob], folder: Path) -> dict[int, _Queued]:
    """Return the jobs that an earlier call has submitted and that are still queued or running."""
    refuse_links(folder, (SUBMITTED,))
    try:
        text = read_text(folder / SUBMITTED, errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LifelongError(f"cannot read {folder / SUBMITTED}: {error.strerror}; delete it") from error
    wanted = {str(_run(job)): position for position, job in enumerate(jobs)}
    found: dict[int, _Queued] = {}
    for line in text.splitlines():
        try:
            record: Any = parse_json(line)
            array, place, runs = str(record["array"]), folder / Path(record["folder"]).name, list(record["runs"])
        except (ValueError, TypeError, KeyError):  # truncated by a kill: that array was submitted, and the locks keep its runs apart
            continue
        if not any(run in wanted for run in runs):
            continue
        for index in _states({array}).get(array, {}):
            if index < len(runs) and (position := wanted.get(runs[index])) is not None:
                found[position] = _Queued(jobs[position], array, index, place / f"{index}.json")
    return found


def _run(job: RunJob) -> Path:
    return (job.folder / job.out).absolute()


def _new_folder(folder: Path) -> Path:
    """Make a folder for one array; two sweeps at once get two."""
    try:
        for number in count(1):
            try:
                (folder / str(number)).mkdir(parents=True)
                return folder / str(number)
            except FileExistsError:
                continue
    except OSError as error:
        raise LifelongError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from error
    raise AssertionError


def _submit(arguments: Sequence[str]) -> str:
    """Submit a script and return the number of its job.

    Raises:
        LifelongError: Slurm refuses it.
    """
    answer = _ask("sbatch", "--parsable", *arguments)
    # With several clusters, the cluster's name follows.
    number = answer.stdout.strip().partition(";")[0]
    if answer.returncode or not number.isdigit():
        raise LifelongError(f"sbatch refuses the jobs: {_last_line(answer.stderr or answer.stdout)}; nothing was started")
    return number


def _states(arrays: set[str]) -> dict[str, dict[int, str]]:
    """Return the states of the jobs that are queued or running, by array and place; an array of which Slurm says nothing is left out."""
    found: dict[str, dict[int, str]] = {}
    for array in arrays:
        answer = _ask("squeue", "--noheader", "--array", f"--jobs={array}", "--format=%F|%K|%T")
        if answer.returncode:
            if "invalid job id" in answer.stderr.lower():  # all have ended some minutes ago
                found[array] = {}
            continue
        rows = [line.strip().split("|") for line in answer.stdout.splitlines()]
        found[array] = {int(row[1]): row[2] for row in rows if len(row) == 3 and row[0] == array and row[1].isdigit()}
    return found


def _how_it_ended(array: str, index: int) -> str:
    """Return how a job ended that has told nothing, in words, as far as Slurm knows."""
    state = ""
    if shutil.which("sacct"):
        answer = _ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={array}_{index}", "--format=State")
        state = next(iter(answer.stdout.split()), "") if not answer.returncode else ""
    if not state:
        answer = _ask("scontrol", "--oneliner", "show", "job", f"{array}_{index}")
        state = next(iter(re.findall(r"\bJobState=(\S+)", answer.stdout)), "")
    return f"as {state}" if state else "without saying how"


def _most_jobs() -> int:
    answer = _ask("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    # The largest index is one less.
    return max(1, int(found[1]) if found else MOST_JOBS)


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        # As good as no answer: it is asked again.
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: {error}")


def _last_line(text: str) -> str:
    return one_line((text.strip().splitlines() or ["it does not say why"])[-1])
