from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from lifelong.data.task import IMAGENET, Normalization
from lifelong.errors import LifelongError
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.relatedness.extractor import Extractor, NetworkExtractor, PixelExtractor, open_extractor

NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def images(count, size, seed=0):
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def normalized(batch, normalization):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalization.mean, normalization.std))
    return (batch.double().float() / 255 - mean) / std


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    made = ImageNetResNet18(last="layer3").eval()
    for buffer_name, buffer in made.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_()
    return made


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


def changed(file: Path, tmp_path: Path, change) -> Path:
    tensors = load_file(file)
    change(tensors)
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path)
    return path


def refused(words, **options):
    """The one line of the error."""
    with pytest.raises(LifelongError, match=words) as caught:
        open_extractor("resnet18", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_features_are_those_of_the_network(network, file):
    extractor = open_extractor("resnet18", weights=file)
    batch = images(5, 40)
    with torch.no_grad():
        expected = network(normalized(batch, NORMALIZATION))
    got = extractor.features(batch, NORMALIZATION)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert isinstance(extractor, Extractor)
    assert isinstance(extractor, NetworkExtractor)
    assert (extractor.name, extractor.dim, extractor.num_parameters) == ("resnet18", 256, 2_782_784)
    assert not got.requires_grad
    assert not extractor.network.training


def test_imagenet_input_is_resized_and_has_imagenet_normalization(network, file):
    extractor = open_extractor("resnet18", weights=file, feature_input="imagenet")
    batch = images(2, 40)
    resized = functional.interpolate(normalized(batch, IMAGENET), (224, 224), mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = network(resized)
    torch.testing.assert_close(extractor.features(batch, NORMALIZATION), expected, rtol=1e-3, atol=1e-4)


def test_chunks_change_nothing(file, monkeypatch):
    extractor = open_extractor("resnet18", weights=file)
    batch = images(7, 32)
    whole = extractor.features(batch, NORMALIZATION)
    monkeypatch.setattr("lifelong.relatedness.extractor.CHUNK_PIXELS", 2 * 32 * 32)
    torch.testing.assert_close(extractor.features(batch, NORMALIZATION), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "feature_input"), [("resnet18", "task"), ("resnet18", "imagenet"), ("pixels", "task")])
@pytest.mark.parametrize(("count", "size"), [(1, 32), (7, 24), (40, 64)])  # at once; at once; in chunks
def test_features_for_several_tasks_are_those_for_each(file, name, feature_input, count, size):
    if feature_input == "imagenet":
        count = min(count, 3)
    extractor = open_extractor(name, weights=file if name == "resnet18" else None, feature_input=feature_input)
    batch, several = images(count, size), [NORMALIZATION, IMAGENET, Normalization((0.1, 0.2, 0.3), (1.0, 0.5, 0.25))]
    found = extractor.features_of_each(batch, several)
    for features, normalization in zip(found, several, strict=True):
        torch.testing.assert_close(features, extractor.features(batch, normalization), rtol=1e-5, atol=1e-5)


def test_a_single_image_goes_through_the_network_once(file, monkeypatch):
    extractor = open_extractor("resnet18", weights=file)
    passes = []
    monkeypatch.setattr(extractor.network, "forward", lambda x, forward=extractor.network.forward: passes.append(len(x)) or forward(x))
    extractor.features_of_each(images(1, 32), [NORMALIZATION, IMAGENET])
    assert passes == [2]


def test_opening_draws_no_random_number_and_features_repeat(file):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    extractor = open_extractor("resnet18", weights=file)
    first = extractor.features(images(3, 32), NORMALIZATION)
    assert torch.equal(first, extractor.features(images(3, 32), NORMALIZATION))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_whole_file_gives_512_features_and_its_classifier_is_dropped(tmp_path):
    network = ImageNetResNet18(last="layer4").eval()
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    bare = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    save_file(tensors | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "whole.safetensors")
    save_file(bare, tmp_path / "bare.safetensors")
    extractor = open_extractor("resnet18", weights=tmp_path / "whole.safetensors")
    assert (extractor.dim, extractor.num_parameters) == (512, 11_176_512)
    assert extractor.digest == open_extractor("resnet18", weights=tmp_path / "bare.safetensors").digest
    batch = images(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            extractor.features(batch, NORMALIZATION), network(normalized(batch, NORMALIZATION)), rtol=1e-4, atol=1e-5
        )


def test_the_digest_tells_weights_apart(file, tmp_path):
    def nudge(tensors):
        tensors["layer2.0.bn1.bias"][5] += 1e-3

    first = open_extractor("resnet18", weights=file).digest
    assert len(first) == 16
    assert first == open_extractor("resnet18", weights=file).digest
    assert first != open_extractor("resnet18", weights=changed(file, tmp_path, nudge)).digest


def test_no_weights_and_no_permission():
    assert "--weights FILE" in refused("needs ImageNet weights.*--download.*--extractor pixels")


def test_missing_folder_truncated_and_foreign_files(file, tmp_path):
    assert str(tmp_path / "nowhere") in refused("there is no weights file", weights=tmp_path / "nowhere")
    refused("there is no weights file", weights=tmp_path)
    half = tmp_path / "half.safetensors"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert str(half) in refused("truncated, or not a safetensors file", weights=half)
    (tmp_path / "empty").write_bytes(b"")
    refused("truncated, or not a safetensors file", weights=tmp_path / "empty")
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "model.pth")
    refused("truncated, or not a safetensors file", weights=tmp_path / "model.pth", download=True)  # a given file is never replaced


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("layer1.0.conv1.weight"), "'layer1.0.conv1.weight' is missing"),
        (lambda tensors: tensors.pop("layer3.1.bn2.running_var"), "'layer3.1.bn2.running_var' is missing"),
        (lambda tensors: tensors.update({"layer1.2.conv1.weight": torch.zeros(1)}), "'layer1.2.conv1.weight' is unexpected"),
        (
            lambda tensors: tensors.update({"layer4.0.conv1.weight": torch.zeros(512, 256, 3, 3)}),
            "ends at layer4: 'layer4.0.bn1|layer4: 'layer4.0.conv2",
        ),
        (
            lambda tensors: tensors.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            r"'conv1.weight' has shape \[64, 1, 7, 7\], not \[64, 3, 7, 7\]",
        ),
        (lambda tensors: tensors["bn1.bias"].fill_(torch.nan), "damaged: 'bn1.bias' holds NaN"),
        (lambda tensors: tensors.update({"bn1.bias": torch.zeros(64, dtype=torch.int32)}), "'bn1.bias' holds int32"),
        (lambda tensors: tensors.clear(), "'conv1.weight' is missing"),
    ],
)
def test_weights_of_another_network(file, tmp_path, change, words):
    path = changed(file, tmp_path, change)
    assert str(path) in refused(words, weights=path)


def test_half_precision_files_are_read(file, tmp_path):
    def halve(tensors):
        tensors.update({name: tensor.half() for name, tensor in tensors.items() if tensor.is_floating_point()})

    features = open_extractor("resnet18", weights=changed(file, tmp_path, halve)).features(images(2, 32), NORMALIZATION)
    assert features.dtype == torch.float32


class FakeHub:
    """The hub's two entrances. Each is a file, or an error: what this machine's cache holds, and what the network says."""

    def __init__(self, monkeypatch, cached=None, answer=None):
        import huggingface_hub

        self.cached, self.answer = cached, answer
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda api, repo, timeout: self.online())

    def online(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def download(self, repo, name, local_files_only=False):
        from huggingface_hub.errors import LocalEntryNotFoundError

        assert (repo, name) == ("timm/resnet18.tv_in1k", "model.safetensors")
        if not local_files_only:
            return str(self.online())
        if self.cached is None:
            raise LocalEntryNotFoundError("not in the cache")
        return str(self.cached)


def test_the_hub_cannot_be_reached(monkeypatch):
    FakeHub(monkeypatch, answer=ConnectionError("no route\nto the host"))
    line = refused("cannot download the extractor's weights timm/resnet18.tv_in1k/model.safetensors", download=True)
    assert "ConnectionError: no route" in line
    assert "--weights" in line


def test_weights_from_the_hub_or_its_cache(monkeypatch, file):
    digest = open_extractor("resnet18", weights=file).digest
    FakeHub(monkeypatch, answer=file)
    assert open_extractor("resnet18", download=True).digest == digest
    FakeHub(monkeypatch, cached=file, answer=ConnectionError("asked for nothing"))
    assert open_extractor("resnet18", download=True).digest == digest


def test_a_file_is_preferred_to_the_hub(monkeypatch, file):
    FakeHub(monkeypatch, answer=AssertionError("asked for nothing"))
    assert open_extractor("resnet18", weights=file, download=True).dim == 256


def test_pixels():
    extractor = open_extractor("pixels")
    assert isinstance(extractor, PixelExtractor)
    assert isinstance(extractor, Extractor)
    small = images(3, 8)
    torch.testing.assert_close(extractor.features(small, NORMALIZATION), normalized(small, NORMALIZATION).flatten(1), rtol=1e-5, atol=1e-6)
    large = images(2, 64)
    averaged = normalized(large, NORMALIZATION).unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))
    torch.testing.assert_close(extractor.features(large, NORMALIZATION), averaged.flatten(1), rtol=1e-5, atol=1e-6)


def test_names_and_combinations_that_do_not_exist():
    with pytest.raises(LifelongError, match="unknown extractor 'resnet-18'; did you mean 'resnet18'"):
        open_extractor("resnet-18")
    with pytest.raises(LifelongError, match=r"'imagenet'.*needs the extractor 'resnet18'"):
        open_extractor("pixels", feature_input="imagenet")
