"""Download a source's files from the Hugging Face Hub, only if downloading is allowed."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lifelong.data.known_sources import Hub
from lifelong.data.split_names import SplitName, usual_splits
from lifelong.errors import LifelongError
from lifelong.extras import require_extra
from lifelong.storage import write_file

PACKAGES = ("datasets", "huggingface_hub")
"""What the extra `hub` installs."""

log = logging.getLogger(__name__)

_SECONDS = 10  # how long the first knock at the hub may take
_BATCH = 1000  # rows written at a time


def folder_name(hub: Hub) -> str:
    """Name the cache folder of a data set: readable, and unique for each data set, configuration and choice of splits."""
    key = json.dumps([hub.id, hub.config, {split: list(parts) for split, parts in hub.splits.items()}])
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', hub.id)[:60]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def fetch(name: str, hub: Hub, folder: Path, searched: str) -> None:
    """Download a data set and lay it down as `train-00000.parquet` and so on, the layout of local data.

    Args:
        name: of the source, for the error line.
        hub: what to fetch; without splits: those with usual names.
        folder: where the files go; train comes last, so a folder with a train file is complete.
        searched: where it was searched before, for the error line.

    Raises:
        LifelongError: the extra `hub` is not installed, the hub cannot be reached or does not have it, or the folder cannot be written.
    """
    if Path(hub.id).exists():
        raise LifelongError(
            f"cannot download source '{name}': there is a folder '{hub.id}' here, which would be mistaken for the data set; start elsewhere"
        )
    require_extra("hub", PACKAGES, f"downloading source '{name}' ({hub.id})", "or give its files with --data DIR")
    try:
        _knock(hub.id)
        splits = _load(name, hub)
    except LifelongError:
        raise
    except Exception as error:  # any of a dozen kinds: no network, no such set, a broken download, a full disk
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise LifelongError(f"cannot download source '{name}' ({hub.id}): {reason}; check the network ({searched})") from error
    for split, rows in splits.items():
        write_file(folder / f"{split}-00000.parquet", _writer(rows))


def _load(name: str, hub: Hub) -> dict[SplitName, Any]:
    """Load the splits of the data set, train last."""
    import datasets

    wanted = hub.splits or _usual_splits(name, hub, datasets.get_dataset_split_names(hub.id, hub.config))
    return {
        split: datasets.concatenate_datasets([datasets.load_dataset(hub.id, hub.config, split=part) for part in parts])
        for split, parts in sorted(wanted.items(), key=lambda item: item[0] == "train")
    }


def _usual_splits(name: str, hub: Hub, there: Sequence[str]) -> dict[SplitName, tuple[str, ...]]:
    if len(there) == 1:
        return {"train": (there[0],)}
    found = usual_splits(f"source '{name}' ({hub.id})", there)
    if "train" not in found:
        raise LifelongError(
            f"source '{name}' ({hub.id}): its splits are {', '.join(there)}; say which of them form train: hub:{hub.id}?train=SPLIT"
        )
    left = [split for split in there if split not in found.values()]
    if left:
        log.warning("source '%s': its other splits are left out: %s", name, ", ".join(left))
    return {split: (part,) for split, part in found.items()}


def _writer(rows: Any) -> Callable[[Path], None]:
    """Return a function that writes the data set to a parquet file, with its class names and the bytes of images named by path."""
    import pyarrow.parquet as pq
    from datasets.table import embed_table_storage

    def write(part: Path) -> None:
        with pq.ParquetWriter(part, rows.features.arrow_schema) as writer:
            for table in rows.with_format("arrow").iter(_BATCH):
                writer.write_table(embed_table_storage(table))

    return write


def _knock(hub_id: str) -> None:
    """Fail at once where the hub is out of reach: `datasets` itself takes a second to start, and would try again for half a minute."""
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        HfApi().dataset_info(hub_id, timeout=_SECONDS)
        return
    # Offline on purpose: `datasets` may still have it from before.
    copies = [
        Path(constants.HF_HUB_CACHE) / f"datasets--{hub_id.replace('/', '--')}",
        Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets") / hub_id.replace("/", "___"),
    ]
    if not any(copy.exists() for copy in copies):
        raise OSError("HF_HUB_OFFLINE is set, and there is no earlier copy of it")
