"""Extractors named by a prefix. Where a package is not installed, a small stand-in takes its place; what needs the real one is skipped."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lifelong.data.task import IMAGENET, Normalization
from lifelong.errors import LifelongError
from lifelong.methods.frozen_network import FrozenNetwork
from lifelong.networks.foreign import quarters
from lifelong.networks.pretrained import Staged
from lifelong.networks.resnet import ImageNetResNet18
from lifelong.networks.squeezenet import SqueezeNet
from lifelong.relatedness.extractor import open_extractor
from lifelong.settings.fields import check, settings_of
from lifelong.settings.pretrained import NCMSettings
from lifelong.settings.sockets import EXTRACTORS

IMAGES = torch.randint(256, (3, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def normalized(images, normalization):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalization.mean, normalization.std))
    return (images.double().float() / 255 - mean) / std


def saved(network: nn.Module, file: Path) -> Path:
    file.parent.mkdir(exist_ok=True, parents=True)
    save_file({name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}, file)
    return file


def all_stages(network: nn.Module) -> tuple[str, ...]:
    return tuple(network.stages) if isinstance(network, Staged) else ()


def check_kept(name: str, weights: Path | None, monkeypatch, size="task"):
    """What a run keeps of the network gives the same features without its file, and has the same digest. Returns it."""
    opened = open_extractor(name, weights=weights)
    frozen = FrozenNetwork(opened, size, all_stages, "cpu")
    with monkeypatch.context() as patched:
        for family in ("file", "timm", "torchvision", "hf"):
            patched.setattr(f"lifelong.relatedness.families.{family}.read", lambda *_: pytest.fail("its file was read"))
        again = FrozenNetwork.from_state(frozen.state(), size, all_stages, "cpu")
    features = frozen.features(IMAGES)
    assert torch.equal(again.features(IMAGES), features)
    assert again.extractor.digest == opened.digest
    assert features.shape[1] == sum(opened.network.stages.values())
    return opened


@pytest.mark.parametrize(("make", "features"), [(SqueezeNet, 512), (ImageNetResNet18, 512), (lambda: ImageNetResNet18("layer3"), 256)])
def test_a_file_of_weights_says_by_its_names_what_it_is(tmp_path, monkeypatch, make, features):
    torch.manual_seed(0)
    network = make().eval()
    file = saved(network, tmp_path / "weights.safetensors")
    opened = check_kept(f"file:{file}", None, monkeypatch)
    assert opened.name == f"file:{file}"
    assert opened.dim == features
    with torch.no_grad():
        torch.testing.assert_close(opened.features(IMAGES, IMAGENET), network(normalized(IMAGES, IMAGENET)), rtol=1e-4, atol=1e-5)


def test_squeezenet_by_its_name(tmp_path, monkeypatch):
    file = saved(SqueezeNet(), tmp_path / "weights.safetensors")
    opened = check_kept("squeezenet", file, monkeypatch)
    assert opened.digest == open_extractor(f"file:{file}").digest
    with pytest.raises(LifelongError, match=r"needs ImageNet weights, which it cannot download: .*--weights FILE"):
        open_extractor("squeezenet", download=True)
    with pytest.raises(LifelongError, match=r"do not fit a SqueezeNet 1.1: 'features.0.weight' is missing"):
        open_extractor("squeezenet", weights=saved(ImageNetResNet18("layer3"), tmp_path / "other.safetensors"))


def test_a_file_of_no_known_network(tmp_path):
    with pytest.raises(LifelongError, match=r"other.safetensors are of no network that is known .* ResNet-18 or .* SqueezeNet 1.1"):
        open_extractor(f"file:{saved(nn.Linear(2, 2), tmp_path / 'other.safetensors')}")
    with pytest.raises(LifelongError, match="there is no weights file"):
        open_extractor("file:nowhere.safetensors")


def test_names_of_families_are_settings_but_not_built_in():
    assert check(settings_of(NCMSettings)["extractor"].hint, "timm:resnet18") == "timm:resnet18"
    assert not EXTRACTORS.built_in("timm:resnet18")
    assert EXTRACTORS.built_in("squeezenet")
    with pytest.raises(ValueError, match="'timm:NAME'"):
        check(settings_of(NCMSettings)["extractor"].hint, "timms:resnet18")


@pytest.mark.parametrize(
    ("name", "package"), [("timm:resnet18", "timm"), ("torchvision:resnet18", "torchvision"), ("hf:a/b", "transformers")]
)
def test_a_package_that_is_missing(monkeypatch, name, package):
    for known in [known for known in sys.modules if known.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LifelongError, match=f"^--extractor {name} needs {package}: pip install {package}$"):
        open_extractor(name)


class Small(nn.Module):
    """A network in the form of timm's, with two stages; it may take images of one size only."""

    def __init__(self, only: int | None = None) -> None:
        super().__init__()
        self.stem, self.second, self.bn = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)
        self.only = only
        self.feature_info = [{"module": "stem", "num_chs": 4}, {"module": "second", "num_chs": 6}]
        self.pretrained_cfg = {"mean": HALF.mean, "std": HALF.std, "input_size": (3, 96, 96), "classifier": "fc", "hf_hub_id": "timm/small"}

    def forward_intermediates(self, x, indices):
        if self.only not in (None, x.shape[2]):
            raise AssertionError(f"Input height ({x.shape[2]}) does not match model ({self.only}).")
        maps = [first := self.stem(x), self.bn(self.second(first))]
        return maps[-1], [maps[index] for index in indices]

    def forward_head(self, x):
        return x.mean(dim=(2, 3))

    def forward(self, x):
        return self.forward_head(self.forward_intermediates(x, [])[0])


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for timm with the networks `small` and `only96`."""
    made = {"small": Small, "only96": lambda: Small(96)}
    module = ModuleType("timm")
    module.is_model, module.list_models = made.__contains__, lambda: list(made)
    module.create_model = lambda name, pretrained, num_classes: made[name]()
    monkeypatch.setitem(sys.modules, "timm", module)
    return made


@pytest.mark.parametrize("name", ["small", "only96"])
def test_a_network_of_timm_with_its_own_normalization_and_size(tmp_path, monkeypatch, timm, name):
    torch.manual_seed(0)
    network = timm[name]().eval()
    head = {"fc.weight": torch.zeros(7, 6)}
    save_file({key: value for key, value in network.state_dict().items() if "tracked" not in key} | head, tmp_path / "weights.safetensors")
    before = torch.get_rng_state()
    opened = check_kept(f"timm:{name}", tmp_path / "weights.safetensors", monkeypatch)
    assert torch.equal(torch.get_rng_state(), before)
    assert opened.network.stages == {"stem": 4, "second": 6}
    assert opened.size == (None if name == "small" else 96)
    sized = normalized(IMAGES, HALF)
    if name == "only96":
        sized = nn.functional.interpolate(sized, (96, 96), mode="bilinear")
    with torch.no_grad():
        torch.testing.assert_close(opened.features(IMAGES, IMAGENET), network(sized), rtol=1e-4, atol=1e-5)


def test_chunks_are_as_many_pixels_as_the_network_computes_on(tmp_path, monkeypatch, timm):
    opened = open_extractor("timm:only96", weights=saved(Small(), tmp_path / "weights.safetensors"))
    passes = []
    monkeypatch.setattr(opened.network, "forward", lambda x, forward=opened.network.forward: passes.append(len(x)) or forward(x))
    monkeypatch.setattr("lifelong.relatedness.extractor.CHUNK_PIXELS", 2 * 96 * 96)
    opened.features(IMAGES, IMAGENET)
    FrozenNetwork(opened, "32", all_stages, "cpu")  # smaller images do not make larger chunks
    assert passes == [2, 1]


def test_weights_of_timm_that_are_missing_or_do_not_fit(tmp_path, monkeypatch, timm):
    with pytest.raises(LifelongError, match="timm has no network 'smal'; did you mean 'small'"):
        open_extractor("timm:smal")
    with pytest.raises(LifelongError, match=r"'timm:small' needs pretrained weights: .*--weights, or use --download"):
        open_extractor("timm:small")
    with pytest.raises(LifelongError, match=r"do not fit timm's small: 'stem.weight' is missing; .*LIFELONG_WEIGHTS"):
        open_extractor("timm:small", weights=saved(nn.Linear(2, 2), tmp_path / "other.safetensors"))
    broken = Small()
    broken.stem.bias.data.fill_(torch.nan)
    with pytest.raises(LifelongError, match=r"damaged: 'stem.bias' holds NaN"):
        open_extractor("timm:small", weights=saved(broken, tmp_path / "broken.safetensors"))
    asked = []
    file = saved(Small(), tmp_path / "hub.safetensors")
    monkeypatch.setattr("lifelong.relatedness.families.timm.fetch", lambda *what: asked.append(what) or file)
    open_extractor("timm:small", download=True)
    assert asked == [("timm/small", "model.safetensors")]


def test_images_that_a_network_cannot_take(tmp_path, timm):
    opened = open_extractor("timm:small", weights=saved(Small(), tmp_path / "weights.safetensors"))
    with pytest.raises(LifelongError, match=r"cannot take images of 2 x 2 \(.*\); use another --feature-size"):
        opened.features(IMAGES[:, :, :2, :2], IMAGENET)


def test_stages_of_deep_networks_are_quarters():
    assert quarters(["a", "b", "c"]) == ("a", "b", "c")
    assert quarters([str(block) for block in range(1, 13)]) == ("3", "6", "9", "12")


def real(name: str) -> ModuleType:
    """The real package; the test is skipped where it is not installed."""
    if name.partition(".")[0] not in sys.modules and importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name.partition('.')[0]} is not installed: its networks are not tried")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_networks_of_the_real_timm(tmp_path, monkeypatch, name):
    network = real("timm").create_model(name, pretrained=False).eval()
    opened = check_kept(f"timm:{name}", saved(network, tmp_path / "weights.safetensors"), monkeypatch)
    how = Normalization(tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"]))
    side = opened.size or 64
    images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(normalized(images, how)), pre_logits=True)
    torch.testing.assert_close(opened.features(images, IMAGENET), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "last"), [("resnet18", "avgpool"), ("mobilenet_v3_small", "classifier.2"), ("squeezenet1_1", "features")])
def test_networks_of_the_real_torchvision(tmp_path, monkeypatch, name, last):
    network = real("torchvision.models").get_model(name, weights=None).eval()
    opened = check_kept(f"torchvision:{name}", saved(network, tmp_path / "weights.safetensors"), monkeypatch, "64")
    kept = []
    network.get_submodule(last).register_forward_hook(lambda _, __, output: kept.append(output))
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(normalized(images, IMAGENET))
    expected = kept[0].mean(dim=(2, 3)) if kept[0].ndim == 4 else kept[0]
    torch.testing.assert_close(opened.features(images, IMAGENET), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_networks_of_the_real_transformers(tmp_path, monkeypatch, kind):
    transformers = real("transformers")
    if kind == "vit":
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=8, num_attention_heads=2, intermediate_size=32, image_size=40, patch_size=8
        )
        network = transformers.ViTForImageClassification(config).eval()
    else:
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        network = transformers.ResNetForImageClassification(config).eval()
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": HALF.mean, "image_std": HALF.std}))
    opened = check_kept("hf:me/mine", tmp_path / "model.safetensors", monkeypatch)
    with torch.no_grad():
        given = network.base_model(normalized(IMAGES, HALF))
    expected = given.last_hidden_state[:, 0] if kind == "vit" else given.last_hidden_state.mean(dim=(2, 3))
    torch.testing.assert_close(opened.features(IMAGES, IMAGENET), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(LifelongError, match=r"reads a file named model\.safetensors"):
        open_extractor("hf:me/mine", weights=saved(nn.Linear(2, 2), tmp_path / "other.safetensors"))


def test_weights_that_torchvision_publishes_are_read_as_tensors_only(monkeypatch):
    from lifelong.relatedness.families.torchvision import _published

    asked = {}
    weights = SimpleNamespace(url="https://somewhere/w.pth", get_state_dict=lambda **how: asked.update(how) or {})
    _published(weights)
    assert asked["weights_only"] is True
    assert asked["check_hash"] is True
