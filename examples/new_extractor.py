"""Frozen features of one's own: each image as a thumbnail of 4 x 4 pixels.

lifelong distances --stream digits --plugin examples/new_extractor.py --extractor thumbnail
"""

from torch import nn

import lifelong

lifelong.register_extractor("thumbnail", lambda: nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()), summary="4 x 4 pixels")
