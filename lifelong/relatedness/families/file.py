"""The extractor `file:WEIGHTS`: a network of this library, known by the names of the file's tensors; the file is part of its name."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lifelong.relatedness.extractor import Extractor, NetworkExtractor
from lifelong.relatedness.families.packages import Open
from lifelong.relatedness.weights import RESNET18, SQUEEZENET, layout_of, load_as, read, saved_network


def of_file(path: str) -> Open:
    """Find the network of a safetensors file by the names of its tensors."""
    remedy = f"give a safetensors file of {RESNET18.label} or {SQUEEZENET.label} as file:PATH"

    def opened(
        *, weights: Path | None, download: bool, feature_input: str, device: torch.device | str, saved: Mapping[str, Tensor] | None = None
    ) -> Extractor:
        file = Path(path)
        if saved is not None:
            network, checksum = saved_network(layout_of(saved, file), saved)
        else:
            tensors = read(file, remedy)
            network, checksum = load_as(layout_of(tensors, file), tensors, file, remedy)
        return NetworkExtractor(f"file:{path}", network, checksum, feature_input=feature_input, device=device)

    return opened
