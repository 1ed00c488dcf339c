"""Find which parquet files of a folder form which split, and check that every shard is there once."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lifelong.data.naming import natural
from lifelong.data.split_names import SplitName, is_word, split_of, usual_splits
from lifelong.errors import LifelongError

_BEGINNING = re.compile(r"([A-Za-z]+)(-.*|[_.]?[0-9]+)?", re.DOTALL)
"""Of a file's name without its ending: a word, and what may follow it (`train`, `train-00000-of-00002`, `train_1`)."""

_SHARD = re.compile(r"(.*?)-?([0-9]+)-of-([0-9]+)(?:-[0-9a-f]+)?")
"""What it is a shard of, its number, of how many; the hub may put a hash behind it."""


def split_files(folder: Path) -> dict[SplitName, list[Path]]:
    """Return the parquet files of each split in name order; a split without files is absent.

    Those of `train` are `train-*.parquet`, `train.parquet` or `train/*.parquet`; the other splits, and the words for each, are found
    alike (see `split_names`).

    Raises:
        LifelongError: there are two sets of files for one split, a name that may mean validation or test, or a shard is missing.
    """
    sets: dict[str, list[Path]] = {}
    for file in _parquet_in(folder):
        matched = _BEGINNING.fullmatch(file.stem)
        if matched and is_word(matched[1]):
            sets.setdefault(matched[1], []).append(file)
    for inner in _folders_of_splits(folder):
        files = _parquet_in(inner)
        if files:
            sets.setdefault(f"{inner.name}/", []).extend(files)
    _one_set_each(folder, sets)
    found = usual_splits(folder, [name.rstrip("/") for name in sets])
    chosen = {split: sets[name] if name in sets else sets[f"{name}/"] for split, name in found.items()}
    for files in chosen.values():
        _check_shards(files)
    return chosen


def named_files(folder: Path, parts: Mapping[SplitName, Sequence[str]]) -> dict[SplitName, list[Path]]:
    """Return the files of the named splits.

    A split is named by the beginning of its files (`big` for `big-*.parquet`, `big.parquet` or `big/*.parquet`) or by a file (`a.parquet`).

    Raises:
        LifelongError: there is no such file, or one of its shards is missing.
    """
    found: dict[SplitName, list[Path]] = {}
    for split, names in parts.items():
        found[split] = []
        for name in names:
            if name.endswith(".parquet"):
                files = [folder / name] if os.path.isfile(folder / name) else []
            else:
                files = [file for file in _parquet_in(folder) if file.stem == name or file.name.startswith(f"{name}-")]
                files += _parquet_in(folder / name) if os.path.isdir(folder / name) else []
                _check_shards(files)
            if not files:
                there = ", ".join(str(file.relative_to(folder)) for file in [*_parquet_in(folder), *_deeper(folder)][:10])
                wanted = name if name.endswith(".parquet") else f"{name}-*.parquet"
                raise LifelongError(f"{folder}: no {wanted} for {split}" + (f"; there are {there}" if there else ""))
            found[split] += files
    return found


def what_there_is(folder: Path) -> str:
    """End an error line about a folder without files of a split: name the parquet files that it has, and how to read them."""
    files, deeper = _parquet_in(folder), _deeper(folder)
    if files:
        named = "+".join(file.name for file in files[:2]) + "+..." * (len(files) > 2)
        there = ", ".join(file.name for file in files[:5]) + ", ..." * (len(files) > 5)
        return f" (but {there}; say which make which split: ?train={named})"
    if deeper:
        inner = deeper[0].parent if split_of(deeper[0].parent.name) is None else deeper[0].parent.parent
        return f" (but there is {deeper[0].relative_to(folder)}; name its folder: parquet:{inner})"
    return ""


def _parquet_in(folder: Path) -> list[Path]:
    """Return the parquet files of a folder, without hidden ones."""
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith(".") and os.path.isfile(file))


def _folders_of_splits(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if is_word(inner.name) and inner.is_dir()) if folder.is_dir() else []


def _deeper(folder: Path) -> list[Path]:
    """Return parquet files one or two levels down, where repositories of the Hub keep them."""
    return [file for pattern in ("*/*.parquet", "*/*/*.parquet") for file in sorted(folder.glob(pattern)) if "/." not in str(file)]


def _one_set_each(folder: Path, sets: Mapping[str, Sequence[Path]]) -> None:
    """Check that each split exists in one form only: else it would be read twice."""
    first: dict[SplitName, Path] = {}
    for name, files in sets.items():
        split = split_of(name.rstrip("/"))
        if split is None:
            continue
        if split in first:
            one, other = (str(file.relative_to(folder)) for file in (first[split], files[0]))
            raise LifelongError(
                f"{folder}: holds {one} and {other}, two names for one split; keep one of them, or say which: ?train=NAME&test=NAME"
            )
        first[split] = files[0]


def _check_shards(files: Sequence[Path]) -> None:
    """Check that numbered shards (`i-of-n`) are complete, each present once, and not mixed with other files."""
    numbered: dict[tuple[str, int], dict[int, Path]] = {}
    others: list[Path] = []
    for file in files:
        matched = _SHARD.fullmatch(file.stem)
        if matched is None:
            others.append(file)
            continue
        shards = numbered.setdefault((matched[1], int(matched[3])), {})
        if int(matched[2]) in shards:
            raise _doubled(shards[int(matched[2])], file)
        shards[int(matched[2])] = file
    first: dict[str, Path] = {}
    for (name, total), shards in numbered.items():
        some = next(iter(shards.values()))
        if name in first:
            raise _doubled(first[name], some)
        first[name] = some
        start = 1 if total in shards and 0 not in shards else 0
        missing = sorted(set(range(start, start + total)) - shards.keys(), key=int)
        if missing or len(shards) > total:
            what = f"{len(missing)} of {total} shards missing, the first is number {missing[0]}" if missing else f"more than {total} shards"
            raise LifelongError(
                f"{some.parent}: next to {some.name}: {what}; copy the whole set, or name the files to read:"
                f" ?train={'+'.join(file.name for file in list(shards.values())[:2])}"
            )
    if numbered and others and any(split_of(file.stem.split("-")[0]) for file in others):
        raise _doubled(next(iter(first.values())), others[0])


def _doubled(one: Path, other: Path) -> LifelongError:
    return LifelongError(
        f"{one.parent}: {one.name} and {other.name} belong to two copies of one split, which would be read twice; keep one of them,"
        f" or name the files to read: ?train={one.name}"
    )


def gaps(files: Sequence[Path]) -> list[str]:
    """Return the names of files that seem to be missing where files are numbered without a total."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for file in files:
        matched = re.fullmatch(r"(.*?)([0-9]+)", file.stem)
        if matched and _SHARD.fullmatch(file.stem) is None:
            numbers.setdefault((matched[1], len(matched[2])), set()).add(int(matched[2]))
    return sorted(
        (
            f"{name}{number:0{width}}.parquet"
            for (name, width), there in numbers.items()
            for number in range(min(min(there), 1), max(there))
            if number not in there
        ),
        key=natural,
    )
