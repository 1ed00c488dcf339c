"""How a task is learned with the help of another one's expert, where transfer is measured."""

from typing import Literal, get_args

Strategy = Literal["share", "fine-tune", "head", "cell"]
"""See `lifelong.experiment.transfer`."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

DEFAULT_STRATEGIES: tuple[Strategy, ...] = ("share", "fine-tune", "head")
"""All but the cell: it is the same for all experts unless cells are searched or drawn."""
