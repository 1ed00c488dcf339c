"""An under-complete auto-encoder of feature vectors: it reconstructs best what it was trained on.

    x  =  sigmoid((f - mean) / std)          a feature vector f, standardized as the training features were, and brought between 0 and 1
    r  =  sigmoid(D relu(E x))               a code of a few numbers, and what is made of it

Source: Aljundi et al., Expert Gate (CVPR 2017), section 3.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class AutoEncoder(nn.Module):
    """Linear encoder, ReLU, linear decoder, sigmoid.

    The encoder reads x - 1/2. That is the same family of functions, since its bias can undo it, but gradient descent finds its way among
    numbers around zero at learning rates that would blow up on a thousand numbers around one half.

    Args:
        features: length of the vectors.
        code: units of the code; fewer than features, or there is nothing to learn.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, code: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.encoder = nn.Linear(features, code)
        self.decoder = nn.Linear(code, features)

    def standardize(self, features: Float[Tensor, "n d"]) -> None:
        """Set the standardization to the mean and deviation of these features; a constant feature has deviation 1."""
        std, mean = torch.std_mean(features, dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))

    def inputs(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Compute the reconstruction target x, between 0 and 1."""
        return torch.sigmoid((features - self.mean) / self.std)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Reconstruct `inputs`."""
        code = F.relu(self.encoder(self.inputs(features) - 0.5))
        return torch.sigmoid(self.decoder(code))

    def errors(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Compute the squared error of each vector, summed over its features."""
        return (self(features) - self.inputs(features)).square().sum(dim=1)
