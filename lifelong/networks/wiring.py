"""Which weights connect which units of a network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wire:
    """A module with parameters, and the units at its two ends. Units are named by the ReLU that makes them.

    Attributes:
        module: the name of a convolution, a linear layer or a batch norm.
        target: the name of the ReLU whose units it writes, one per output channel.
        source: the name of the ReLU whose units it reads; None: the image, or for a batch norm only its own channel.
    """

    module: str
    target: str
    source: str | None = None
