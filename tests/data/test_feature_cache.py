import logging
import os
import time

import pytest
import torch
from safetensors.torch import load_file

from lifelong.data import feature_cache
from lifelong.data.feature_cache import keeping, kept, rounded

IMAGES = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path))
    return tmp_path / "features"


class Network:
    """Sums of each image's channels, and how often they were asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def of(self, images=IMAGES, about=("resnet18", "digest", 64, "layer3")):
        def compute():
            self.calls += 1
            return images.sum(dim=(2, 3)).float() / 3

        return kept(images, about, CPU, compute)


def test_computed_once_and_equal_to_the_bit(folder):
    network = Network()
    with keeping():
        first, again = network.of(), network.of()
    assert network.calls == 1
    assert torch.equal(first, again)
    assert torch.equal(again, IMAGES.sum(dim=(2, 3)).float() / 3)
    (file,) = folder.iterdir()
    assert [tensor.shape for tensor in load_file(file).values()] == [(6, 3)]


def test_nothing_is_kept_outside_a_run(folder):
    network = Network()
    network.of()
    with keeping():
        pass
    network.of()
    assert network.calls == 2
    assert not folder.exists()


@pytest.mark.parametrize(
    ("images", "about"),
    [
        (IMAGES.flip(0), ("resnet18", "digest", 64, "layer3")),
        (IMAGES[:5], ("resnet18", "digest", 64, "layer3")),
        (IMAGES.view(6, 3, 2, 8), ("resnet18", "digest", 64, "layer3")),
        (IMAGES, ("resnet18", "other", 64, "layer3")),
        (IMAGES, ("resnet18", "digest", 32, "layer3")),
        (IMAGES, ("resnet18", "digest", 64, "layer2", "layer3")),
    ],
)
def test_other_images_weights_sizes_and_stages_have_other_features(images, about):
    network = Network()
    with keeping():
        network.of()
        network.of(images, about)
    assert network.calls == 2


def test_another_number_of_threads_or_type_has_features_of_its_own():
    network = Network()
    with keeping():
        network.of()
        torch.set_num_threads(2)
        network.of()
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float64)
        try:
            network.of()
        finally:
            torch.set_default_dtype(torch.float32)
    assert network.calls == 3


@pytest.mark.parametrize("damage", ["a bit", "truncated", "empty", "of another place"])
def test_a_damaged_file_is_dropped_and_its_features_computed_again(folder, caplog, damage):
    network = Network()
    with keeping():
        whole = network.of()
        (file,) = folder.iterdir()
        content = bytearray(file.read_bytes())
        if damage == "a bit":
            content[-3] ^= 1
        if damage == "of another place":
            network.of(IMAGES.flip(0))
            (other,) = set(folder.iterdir()) - {file}
            content = other.read_bytes()
        file.write_bytes({"truncated": content[:-1], "empty": b""}.get(damage, bytes(content)))
        before = network.calls
        with caplog.at_level(logging.WARNING):
            assert torch.equal(network.of(), whole)
        assert network.calls == before + 1
        assert "dropped, and computed again" in caplog.text
        assert torch.equal(network.of(), whole)
    assert network.calls == before + 1


def test_what_was_not_used_for_longest_goes_first(folder, monkeypatch):
    network = Network()
    several = [IMAGES + place for place in range(4)]
    with keeping():
        for images in several[:3]:
            network.of(images)
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        for age, file in enumerate(files):
            os.utime(file, (1_000_000 + age, 1_000_000 + age))
        size = files[0].stat().st_size
        network.of(several[0])  # used again
        monkeypatch.setattr(feature_cache, "LIMIT", 3 * size)
        network.of(several[3])
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 3 * size
        assert files[0].exists()
        assert not files[1].exists()
        assert network.calls == 4


def test_features_larger_than_all_that_is_kept_and_files_left_half_written(folder, monkeypatch):
    network = Network()
    folder.mkdir()
    for name, age in ((".left.part", 2 * feature_cache.ABANDONED), (".writing.part", 0)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    with keeping():
        network.of()
        assert sorted(file.name[:2] for file in folder.iterdir() if file.name.startswith(".")) == [".w"]
        monkeypatch.setattr(feature_cache, "LIMIT", 10)
        before = set(folder.iterdir())
        network.of(IMAGES.flip(0))
    assert set(folder.iterdir()) == before


def test_a_folder_that_cannot_be_written_costs_only_time(folder, caplog):
    folder.write_text("not a folder")
    network = Network()
    with keeping(), caplog.at_level(logging.WARNING):
        assert torch.equal(network.of(), network.of())
    assert network.calls == 2
    assert "features are not kept" in caplog.text


def test_features_that_half_precision_holds_take_half_the_bytes(folder):
    exact, network = rounded(torch.randn(6, 500, generator=torch.Generator().manual_seed(0))), Network()
    with keeping():
        first = kept(IMAGES, ("network", "half"), CPU, lambda: exact)
        (file,) = folder.iterdir()
        again = kept(IMAGES, ("network", "half"), CPU, lambda: pytest.fail("it is on the disk"))
        (stored,) = load_file(file).values()
        network.of()
    assert stored.dtype == torch.float16
    assert 2 * exact.numel() < file.stat().st_size < 3 * exact.numel()
    assert first.dtype == again.dtype == torch.float32
    assert torch.equal(first, exact)
    assert torch.equal(again, exact)
    (other,) = set(folder.iterdir()) - {file}
    assert [tensor.dtype for tensor in load_file(other).values()] == [torch.float32]


def test_rounding_is_to_eleven_bits_and_leaves_what_is_out_of_range():
    features = torch.tensor([[1 + 2**-10, 1 + 2**-12, -3.0]])
    assert rounded(features).tolist() == [[1 + 2**-10, 1.0, -3.0]]
    large = torch.tensor([[70_000.0, 1 + 2**-12]])
    assert torch.equal(rounded(large), large)


def test_how_long_it_took_to_compute_what_is_kept_is_counted():
    def slowly():
        time.sleep(0.02)
        return torch.ones(2, 3)

    with keeping() as first, keeping() as second:
        kept(IMAGES[:2], ["slow"], CPU, slowly)
    with keeping() as third:
        kept(IMAGES[:2], ["slow"], CPU, slowly)
    assert second.seconds >= 0.02
    assert first.seconds == third.seconds == 0
