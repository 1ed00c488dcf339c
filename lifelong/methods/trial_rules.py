"""Decision rules that train several options: an oracle for every task, and a threshold calibrated on the first tasks."""

import itertools

import torch

from lifelong.devices import exact_device
from lifelong.methods.decisions import Attempt, DecisionRule, Learned, Question
from lifelong.relatedness.groups import Decision
from lifelong.storage import Tree


class Oracle(DecisionRule):
    """Try every option and keep the best on validation images, as a reference for decisions made before training.

    The options are sharing with each group (with the regularizer of the settings), the nearest group's cell and a searched one (where the
    variant has both; else the allocation's expert). Among those whose accuracy is within `share_margin` of the best, 0.01 by default, the
    one with the fewest parameters wins; ties go to the more accurate, then to the one tried first.

    Limits: it only sees the new task's accuracy. What sharing does to the group's earlier tasks cannot be measured, because their images
    are gone; sharing that harms them looks as good as sharing that does not. With few validation images, the best of several trials may
    just be the luckiest. The time of discarded trials is in the record's `seconds`, as "attempts".
    """

    def decide(self, question: Question) -> Decision:
        """Try all possible decisions, and return the best."""
        options = [question.share(group, "tried") for group in range(len(question.groups))]
        options += [question.allocate("tried", kind) for kind in (("reuse-cell", "search") if question.settings.coarse else (None,))]
        tried = [question.attempt(option) for option in options]
        best = max(attempt.accuracy for attempt in tried)
        enough = [attempt for attempt in tried if attempt.accuracy >= best - question.settings.share_margin - 1e-9]
        chosen = min(enough, key=lambda attempt: (attempt.parameters, -attempt.accuracy))
        return question.renewed(chosen.decision, f"of {len(tried)} tried: {', '.join(map(_said, tried))}")


class Calibrated(DecisionRule):
    """Set alpha by trials on the first tasks: between the distances at which sharing helped and those at which it did not.

    For each of `calibration_tasks` tasks after the first (3 by default), sharing with the nearest group and a new expert are both tried;
    sharing wins unless its validation accuracy is lower by more than `share_margin`. From then on a task shares with the nearest group
    within the calibrated alpha: the threshold, halfway between two distances, at which the trials would have lost the least accuracy, or
    the alpha of the settings if that loses no more.

    This rule is our own. Like the oracle, it does not see what sharing does to earlier tasks.
    """

    def decide(self, question: Question) -> Decision:
        """Try both during calibration; afterwards compare the distance with the calibrated alpha."""
        settings, nearest = question.settings, question.nearest
        distance, trials = question.distances[nearest], [] if question.kept is None else question.kept.tolist()
        if len(trials) < settings.calibration_tasks:
            shared, own = question.attempt(question.share(nearest, "tried")), question.attempt(question.allocate("tried"))
            chosen = shared if shared.accuracy >= own.accuracy - settings.share_margin - 1e-9 else own
            return question.renewed(chosen.decision, f"calibration at distance {distance:.3f}: {_said(shared)}, {_said(own)}")
        alpha = calibrated_alpha(trials, settings.alpha, settings.share_margin)
        found = f"{distance:.3f} {'≤' if distance <= alpha else '>'} calibrated α {alpha:.3f} from group {nearest}"
        return question.share(nearest, found) if distance <= alpha else question.allocate(found)

    def keep(self, learned: Learned) -> Tree:
        """Return for each trial its distance, and how much more accurate sharing was."""
        before, tried = learned.kept, {attempt.decision.decision == "reuse-expert": attempt for attempt in learned.attempts}
        if not tried:
            return before
        gain, place = tried[True].accuracy - tried[False].accuracy, exact_device(learned.context.device)
        row = torch.tensor([[tried[True].decision.distance, gain]], dtype=torch.float64, device=place)
        return row if before is None else torch.cat([before, row])


def calibrated_alpha(trials: list[list[float]], alpha: float, margin: float) -> float:
    """Return the threshold at which the trials would have lost the least.

    Args:
        trials: for each, its distance and the accuracy that sharing gained.
        alpha: the result, if it loses no more than the best threshold between distances.
        margin: accuracy that sharing may cost.
    """
    distances = sorted({distance for distance, _ in trials})
    between = [distances[0] / 2, *((one + other) / 2 for one, other in itertools.pairwise(distances))]

    def lost(threshold: float) -> float:
        """Return the accuracy that decisions by this threshold would have missed."""
        return sum(max(0.0, -(gain + margin) if distance <= threshold else gain + margin) for distance, gain in trials)

    return min([alpha, *between, (1 + distances[-1]) / 2], key=lost)


def _said(attempt: Attempt) -> str:
    """Describe what was tried, and how accurate it was."""
    decision = attempt.decision
    what = {"search": "a searched cell", "reuse-cell": "a known cell", "allocate": "a new expert"}
    return f"{what.get(decision.decision, f'sharing with group {decision.group}')} {attempt.accuracy:.1%}"
