"""What stays as it is: the guarantee that a learned module is not changed by whatever is trained around it.

Three things change a module that nobody means to change: gradients left over for an optimizer, weight decay or momentum on weights without
gradients, and running statistics of a batch norm that a surrounding `train()` has put into training mode. So a frozen module has no
gradients, and where it is part of a network in training it is only `Borrowed`: the network neither holds its weights nor sets its mode.
"""

from torch import Tensor, nn


def freeze(*modules: nn.Module) -> None:
    """Fix modules: evaluation mode (batch-norm statistics stay), no gradients, also none left over."""
    for module in modules:
        module.eval().requires_grad_(False).zero_grad(set_to_none=True)


class Borrowed(nn.Module):
    """A frozen module as seen from a network in training: it is run, and neither held, trained, counted nor saved with the network.

    Args:
        module: is frozen, if it is not yet.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        freeze(module)
        # In a tuple, a module is no child: `parameters`, `state_dict` and `train` of what surrounds it pass it by.
        self._lender = (module,)

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the frozen module makes of its inputs, in evaluation mode; gradients pass through to the inputs."""
        return self._lender[0](*inputs)
