"""What answers for a task of PAR on a frozen pretrained network: its head, and what helps it."""

from dataclasses import dataclass

from torch import nn

from lifelong.methods.mixed_head import Mixture, OwnHead
from lifelong.storage import Tree
from lifelong.trees import weights_of


@dataclass
class Classifiers:
    """What answers for one task.

    Attributes:
        own: its own head.
        related: reads the probabilities of the heads of `earlier`; None if they do not help.
        earlier: the earlier tasks of its group.
        adapted: the adapted stage and its classifier; None if there are no adapters.
        side: the network of cells and its classifier; None if there is none.
        mixture: the weights of the four.
    """

    own: OwnHead
    related: nn.Linear | None
    earlier: tuple[int, ...]
    adapted: nn.Sequential | None
    side: nn.Sequential | None
    mixture: Mixture

    def named(self) -> dict[str, nn.Module]:
        """Return those that are there, by their names."""
        parts = {"own": self.own, "related": self.related, "adapted": self.adapted, "side": self.side}
        return {name: module for name, module in parts.items() if module is not None}

    def modules(self) -> tuple[nn.Module, ...]:
        """Return those that are there."""
        return tuple(self.named().values())

    @property
    def decision(self) -> str:
        """What the task got, in the words of its record: of adapters and a side network, the one that has more weight."""
        if self.side is not None and self.mixture.side >= self.mixture.adapted:
            return "side"
        return "adapter" if self.adapted is not None else "reuse-expert" if self.related is not None else "head"

    def state(self) -> Tree:
        """Return them as they are saved. A state without a side network lacks the key, as those of earlier versions do."""
        return {
            "own": weights_of(self.own),
            "related": None if self.related is None else weights_of(self.related),
            "earlier": list(self.earlier),
            "adapted": None if self.adapted is None else weights_of(self.adapted),
            "mixture": self.mixture.state(),
        } | ({} if self.side is None else {"side": weights_of(self.side)})
