"""Sources that come from the hub."""

import pytest
import torch

from lifelong.data import hub
from lifelong.data.known_sources import DTD
from lifelong.data.sources import Sources
from tests.data.reading import fails, numbers
from tests.parquet_files import numbered, png


def test_nothing_is_fetched_unless_allowed(sources, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda *args: pytest.fail("fetched"))
    fails(sources, "mnist", "--download")


def test_a_hub_out_of_reach_fails_at_once(tmp_path, monkeypatch):
    def knock(self, hub_id, timeout):
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", knock)
    sources = Sources(tmp_path / "data", download=True, cache=tmp_path / "cache")
    fails(sources, "mnist", "ylecun/mnist", str(tmp_path / "data" / "mnist"), "Name or service not known", "--data DIR")


def test_what_the_hub_gives_goes_the_way_of_local_files(tmp_path, monkeypatch):
    """The hub's form of DTD: two splits make train, columns as `datasets` has them."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(DTD))})
    asked = []

    def load(hub_id, config, split):
        asked.append((hub_id, config, split))
        start = {"train": 0, "validation": 3, "test": 5}[split]
        count = {"train": 3, "validation": 2, "test": 4}[split]
        stored: list[dict] = [{"bytes": png(pixels), "path": None} for pixels in numbered(count, 4, start)]
        if split == "validation":  # a data set of loose files: paths only
            for number, image in enumerate(stored):
                file = tmp_path / f"{number}.png"
                file.write_bytes(image["bytes"])
                stored[number] = {"bytes": None, "path": str(file)}
        rows = {"image": stored, "label": [start] * count}
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(hub, "_knock", lambda hub_id: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    datasets.disable_progress_bars()
    source = Sources(tmp_path / "data", download=True, cache=tmp_path / "cache").open("dtd")
    assert asked == [("mcimpoi/dtd_split_1", None, split) for split in ("validation", "test", "train")]
    assert source.classes == DTD
    assert source.labels("train").tolist() == [0, 0, 0, 3, 3]
    assert numbers(source.images("train", torch.arange(5), 4)) == [0, 1, 2, 3, 4]
    assert numbers(source.images("test", torch.arange(4), 4)) == [5, 6, 7, 8]

    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **more: pytest.fail("fetched twice"))
    again = Sources(tmp_path / "data", cache=tmp_path / "cache").open("dtd")
    assert again.fingerprint("train") == source.fingerprint("train")
