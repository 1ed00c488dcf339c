"""Finetune: one network trained on task after task, a head each, nothing protected.

The lower bound: what it forgets is what other methods are to keep. Multi-head; the rows called Finetune in the paper's Table 1
share one head among all tasks and score lower.
"""

from lifelong.methods.single import SingleNetworkMethod
from lifelong.settings.baselines import FinetuneSettings


class Finetune(SingleNetworkMethod[FinetuneSettings]):
    """Train the backbone and the new head with cross-entropy; old heads stay as they are."""

    name = "finetune"
