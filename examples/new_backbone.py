"""A network of one's own for the baselines: two layers on the pixels.

lifelong run --stream digits --preset quick --plugin examples/new_backbone.py --method ewc --backbone pixels-mlp
"""

from torch import nn

import lifelong


class PixelsMLP(nn.Sequential):
    """Normalized images (n, 3, h, h) to features (n, 8 width)."""

    def __init__(self, image_size, width):
        super().__init__(nn.Flatten(), nn.Linear(3 * image_size**2, 8 * width), nn.ReLU(), nn.Linear(8 * width, 8 * width), nn.ReLU())
        self.feature_dim = 8 * width


lifelong.register_backbone("pixels-mlp", PixelsMLP, summary="two layers on the pixels")
