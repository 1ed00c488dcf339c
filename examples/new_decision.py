"""A decision rule of one's own: share with the group whose mean features are nearest, if they are nearer than a task's are spread.

lifelong run --stream digits --preset quick --plugin examples/new_decision.py --decision within-spread
"""

import lifelong


class WithinSpread(lifelong.DecisionRule):
    """Share if |m_new - m_old| is smaller than the deviation of the earlier task's features."""

    def decide(self, question):
        """Compare the new task with every earlier one."""
        mean = question.sample.features.mean(dim=0)
        shifts = [((mean - one["mean"]).norm() / one["spread"]).item() for one in question.kept]
        nearest = min(range(len(shifts)), key=shifts.__getitem__)
        group = question.groups.group_of(nearest)
        if shifts[nearest] < 1:
            return question.share(group, f"{shifts[nearest]:.2f} spreads from task {nearest}")
        return question.allocate(f"{shifts[nearest]:.2f} spreads from the nearest task, {nearest}")

    def keep(self, learned):
        """Return mean and deviation of every task's features."""
        features = learned.sample.features
        own = {"mean": features.mean(dim=0), "spread": features.var(dim=0).sum().sqrt()}
        return [*(learned.kept or []), own]


lifelong.register_decision("within-spread", WithinSpread, summary="the group within a spread of the features' means")
