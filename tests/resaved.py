"""Files of a run, changed and written again as the run itself would have: with the right digests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lifelong.experiment.results import RunDirectory
from lifelong.headers import pack
from lifelong.json_files import as_lines, read_lines, read_record, write_record
from lifelong.records.base import plain
from lifelong.storage import save_tree


def change_state(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Let a function change the state of a run in place; the one before it stays as it is."""
    directory = RunDirectory(run)
    state = directory.load()
    change(state)
    save_tree(directory.state_file, state, directory.seal.owner(directory.state_file))


def resave(run: Path, file: Path, tree: Any) -> None:
    """Write a file of a run with another tree."""
    save_tree(file, tree, RunDirectory(run).seal.owner(file))


def change_record(file: Path, **values: Any) -> None:
    """Write a JSON file of a run with other values of some keys."""
    write_record(file, read_record(file)[0] | values)


def without_digest(file: Path) -> dict[str, Any]:
    """What stands in a JSON file, but for its digest."""
    return {key: value for key, value in json.loads(file.read_text()).items() if key != "digest"}


def as_earlier_version(run: Path, *missing: str) -> Path:
    """Bring a run into the form in which versions wrote it that knew no digests, and no settings of these names."""
    directory = RunDirectory(run)
    state = {key: value for key, value in directory.load().items() if key not in ("summary", "identity")}
    for entry in state["entries"]:
        entry.pop("made_with", None)
    tensors: dict[str, torch.Tensor] = {}
    structure = json.dumps(pack(state, tensors))
    save_file(tensors, directory.state_file, metadata={"tree": structure})
    directory.previous_file.unlink(missing_ok=True)
    identity = {key: value for key, value in without_digest(directory.identity_file).items() if key not in missing}
    directory.identity_file.write_text(json.dumps(identity, indent=1))
    (run / "summary.json").write_text(json.dumps(plain(without_digest(run / "summary.json")), indent=1) + "\n")
    for file in (directory.results, directory.curves):
        file.write_text("".join(f"{json.dumps(line)}\n" for line in read_lines(file).found))
    return run


def under_old_names(run: Path) -> Path:
    """Bring a run into the form in which versions wrote it that called Eq. 4 distances, with digests over those names."""

    def old(record: dict[str, Any]) -> dict[str, Any]:
        return {{"divergences": "distances", "task_agnostic": "task_free"}.get(key, key): value for key, value in record.items()}

    def change(state: dict[str, Any]) -> None:
        state["entries"] = [old(entry) for entry in state["entries"]]
        state["summary"] = old({key: value for key, value in state["summary"].items() if key != "schema_version"})

    change_state(run, change)
    directory = RunDirectory(run)
    directory.previous_file.unlink(missing_ok=True)
    summary = read_record(run / "summary.json")[0]
    del summary["schema_version"]
    write_record(run / "summary.json", old(summary) | {"tasks": [old(task) for task in summary["tasks"]]})
    owner = directory.seal.run
    directory.results.write_text(as_lines([old(line) for line in read_lines(directory.results).found], owner))
    return run
