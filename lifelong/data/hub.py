"""A source's files from the Hugging Face hub, only ever when downloading was allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lifelong.data.catalog import Entry
from lifelong.errors import LifelongError
from lifelong.storage import write_file

_SECONDS = 10  # how long the first knock at the hub may take
_BATCH = 1000  # rows written at a time


def fetch(entry: Entry, folder: Path, searched: str) -> None:
    """Download a source and lay it down as `train-00000.parquet` and so on, the layout of local data.

    Args:
        entry: the source.
        folder: where the files go; train comes last, so a folder with a train file is complete.
        searched: where its files were looked for before, for the error line.

    Raises:
        LifelongError: the hub cannot be reached or does not have it, or the folder cannot be written.
    """
    if entry.hub is None:
        raise LifelongError(f"source '{entry.name}' is not on the hub")
    import datasets

    hub = entry.hub
    try:
        _knock(hub.id)
        splits = {
            split: datasets.concatenate_datasets([datasets.load_dataset(hub.id, hub.config, split=part) for part in parts])
            for split, parts in sorted(hub.splits.items(), key=lambda item: item[0] == "train")
        }
    except Exception as error:  # any of a dozen kinds: no network, no such set, a broken download, a full disk
        reason = str(error).strip().splitlines()
        raise LifelongError(
            f"cannot download source '{entry.name}' ({hub.id}): {reason[0] if reason else type(error).__name__};"
            f" {searched}; check the network, or give a folder that holds it with --data DIR (or LIFELONG_DATA)"
        ) from error
    for split, rows in splits.items():
        write_file(folder / f"{split}-00000.parquet", _writer(rows))


def _writer(rows: Any) -> Callable[[Path], None]:
    """Writes a data set to a parquet file with its class names, and with the images themselves where it holds only their paths."""
    import pyarrow.parquet as pq
    from datasets.table import embed_table_storage

    def write(part: Path) -> None:
        with pq.ParquetWriter(part, rows.features.arrow_schema) as writer:
            for table in rows.with_format("arrow").iter(_BATCH):
                writer.write_table(embed_table_storage(table))

    return write


def _knock(hub_id: str) -> None:
    """Fail at once where the hub is out of reach: `datasets` itself would try again for half a minute."""
    import huggingface_hub

    if not huggingface_hub.constants.HF_HUB_OFFLINE:  # offline on purpose: `datasets` then answers at once from its own cache
        huggingface_hub.HfApi().dataset_info(hub_id, timeout=_SECONDS)
