"""Regularizers that keep a shared expert good at its earlier tasks while it learns another one; PAR's is exchangeable.

When a task joins a group, the group's expert is trained on it with the regularizer's loss; what the regularizer keeps of an expert after
each such task is passed to it at the next. One of your own:

    class Mine(Regularizer):
        def loss(self, shared): ...
        def keep(self, shared): ...                     # if something is to be kept

    lifelong.register_regularizer("mine", Mine)         # then: --regularizer mine
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import nn

from lifelong.methods.conformance import check_method
from lifelong.methods.distillation import distillation_loss
from lifelong.methods.method import Context
from lifelong.settings.arguments import checked
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import REGULARIZERS
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.fit import Loss


@dataclass(frozen=True)
class Shared:
    """An expert, and the task that it is about to learn or has just learned.

    Attributes:
        expert: images to features; the weights that earlier tasks depend on.
        head: of the task, features to logits.
        old_heads: heads of the tasks that the expert already serves; trained only if the settings say so.
        examples: of the task.
        kept: what `keep` returned after the task before; None if that was nothing.
        settings: PAR's; `kd_weight` is the weight of whatever is added to the cross-entropy.
        context: seeds and the device.
        trained: names of the expert's parameters that are trained; the others never change.
    """

    expert: nn.Module
    head: nn.Module
    old_heads: Sequence[nn.Module]
    examples: Examples
    kept: Tree
    settings: PARSettings
    context: Context
    trained: Collection[str]


class Regularizer(ABC):
    """Keeps a shared expert good at its earlier tasks. It has no state besides what `keep` returns for an expert."""

    scale: ClassVar[float] = 1.0
    """What `kd_weight` is multiplied by. Penalties differ by orders of magnitude; with this factor 1 is a sensible weight for each."""

    trains_expert: ClassVar[bool] = True
    """Whether a shared expert is trained at all. If not, a task gets only a head, on features that are computed once."""

    @abstractmethod
    def loss(self, shared: Shared) -> Loss:
        """Return the loss with which the expert learns another task, including the cross-entropy.

        Args:
            shared: with the expert before training; its weights and the head's are about to be trained.
        """

    def keep(self, shared: Shared) -> Tree:
        """Return what to keep of an expert that has learned a task, as tensors and plain values; None, as here, for nothing.

        Args:
            shared: with the trained expert and head, frozen; `kept` is from before.
        """
        return None

    def weight(self, shared: Shared) -> float:
        """Return the weight of what is added to the cross-entropy: `kd_weight` times `scale`."""
        return shared.settings.kd_weight * self.scale


class Distillation(Regularizer):
    """The paper's regularizer: distill the outputs of the earlier heads on the new images (Eq. 7-9)."""

    def loss(self, shared: Shared) -> Loss:
        """Return the distillation loss (`lifelong.methods.distillation`)."""
        weight, temperature = self.weight(shared), shared.settings.temperature
        return distillation_loss(shared.expert, shared.head, shared.old_heads, shared.examples, weight=weight, temperature=temperature)


# `object`, not `type[Regularizer]`: a wrong class gets a message of its own.
@checked
def register_regularizer(name: str, regularizer: object, *, summary: str = "", source: str = "") -> None:
    """Register your own regularizer for `--regularizer` and the setting `regularizer`.

    Args:
        name: letters, digits, dashes and underscores.
        regularizer: a subclass of `Regularizer` that is made without arguments.
        summary: one line of what it does.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid, or the class is not a complete regularizer.
    """
    REGULARIZERS.register_class(name, regularizer, Regularizer, summary=summary, source=source)


@checked
def check_regularizer(name: str, *, images: Annotated[int, Ge(1)] = 8) -> None:
    """Try a registered regularizer in PAR, on synthetic tasks that all share one expert.

    Checked: all that `check_method` checks of a method.

    Args:
        name: of the regularizer.
        images: training images per class.

    Raises:
        ConformanceError: what is broken, and at which task.
        LifelongError: there is no such regularizer.
    """
    from lifelong.methods.par import PAR

    settings = PARSettings(regularizer=REGULARIZERS.entry(name).name, variant="regularization", init_channels=4, cells=2)
    check_method(lambda: PAR(settings), images=images)
