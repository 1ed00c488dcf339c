"""Frozen modules: the guarantee that a learned module is not changed by what is trained around it.

Three things change a module by accident: gradients left over for an optimizer, weight decay or momentum on weights without gradients, and
running statistics of a batch norm that a surrounding `train()` has put into training mode. So a frozen module has no
gradients, and where it is part of a network in training it is only `Borrowed`: the network neither holds its weights nor sets its mode.
"""

from torch import Tensor, nn


def freeze(*modules: nn.Module) -> None:
    """Freeze modules: evaluation mode (batch-norm statistics stay), no gradients, and none left over."""
    for module in modules:
        module.eval().requires_grad_(False).zero_grad(set_to_none=True)


class Borrowed(nn.Module):
    """A frozen module used by a network in training: it is run, but not owned, trained, counted or saved with the network.

    Args:
        module: frozen here if it is not yet.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        freeze(module)
        # A module in a tuple is not a child: `parameters`, `state_dict` and `train` of the network skip it.
        self._lender = (module,)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Run the frozen module in evaluation mode; gradients pass through to the inputs."""
        return self._lender[0](*inputs)
