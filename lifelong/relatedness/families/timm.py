"""The extractors `timm:NAME`: networks of timm, with its pretrained weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lifelong.errors import LifelongError
from lifelong.networks.foreign import ForeignNetwork, TimmNetwork, examined, quarters
from lifelong.relatedness.families.packages import (
    Open,
    described,
    imported,
    load_eval,
    meant,
    no_weights,
    opener,
    remedy_for,
    side_of,
    with_counters,
)
from lifelong.relatedness.weights import checked_tensors, fetch, read


def of_timm(name: str) -> Open:
    """Find a network of timm by its name there, which may end in the name of its weights ("resnet18.a1_in1k").

    Raises:
        LifelongError: timm is not installed, or has no such network.
    """
    timm = imported("timm", f"timm:{name}")
    if not timm.is_model(name):
        raise LifelongError(f"timm has no network '{name}'{meant(name, timm.list_models())}; see timm.list_models()")

    def make() -> nn.Module:
        return timm.create_model(name, pretrained=False, num_classes=0)

    def load(weights: Path | None, download: bool) -> ForeignNetwork:
        network = make()
        known: Mapping[str, Any] = getattr(network, "pretrained_cfg", {})
        label = f"timm's {name}"
        repository = str(known.get("hf_hub_id") or "")
        if weights is None and not (download and repository):
            no_weights(f"timm:{name}", "" if repository else "timm names no hub for it; ")
        file = weights if weights is not None else fetch(repository, "model.safetensors")
        heads = known.get("classifier") or ()
        dropped = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        expected = network.state_dict()
        remedy = remedy_for(f"timm's {name}")
        found = {key: tensor for key, tensor in read(file, remedy).items() if key in expected or not (dropped and key.startswith(dropped))}
        load_eval(network, checked_tensors(with_counters(found, expected), expected, label, file, remedy))
        about = described(known.get("mean"), known.get("std"), quarters(TimmNetwork.described(network)))
        return examined(lambda about: TimmNetwork(network, about), about, side_of(known.get("input_size")))

    return opener(f"timm:{name}", load, lambda about: TimmNetwork(make(), about))
