"""A measure of one's own: how far the mean features of two tasks lie apart, in spreads of the new task.

lifelong distances --stream digits --plugin examples/new_measure.py --measure mean-shift
"""

import torch

import lifelong


class MeanShift(lifelong.Measure):
    """|m_new - m_old| / sigma_new, of the means of all features."""

    def keep(self, sample, settings):
        """Return the mean of the task's features."""
        return sample.features.mean(dim=0)

    def divergences(self, sample, kept, settings):
        """Return the distance to each stored mean."""
        mean, spread = sample.features.mean(dim=0), sample.features.std(dim=0).norm()
        return torch.stack([(mean - old).norm() / spread for old in kept]) if kept else torch.zeros(0)


lifelong.register_measure("mean-shift", MeanShift, summary="distance of the mean features")
