"""Carry out decisions on trial: train copies, and adopt the result if the decision is made."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lifelong.errors import LifelongError
from lifelong.methods.decisions import Attempt
from lifelong.methods.method import Context, LearnRecord, count_parameters
from lifelong.relatedness.groups import Decision
from lifelong.storage import Tree


@dataclass(frozen=True)
class Outcome:
    """The result of carrying out a decision; the rest of the model is unchanged.

    Attributes:
        group: the task's group; a new one if its expert is new.
        expert: the group's expert, frozen.
        head: the task's head, frozen.
        old_heads: the heads of the group's earlier tasks.
        plan: the plan from which the expert was built.
        trained: names of the expert's trained parameters.
        kept: what the regularizer stores for the expert.
    """

    group: int
    expert: nn.Module
    head: nn.Module
    old_heads: list[nn.Module]
    plan: str
    trained: set[str]
    kept: Tree


CarryOut = Callable[[Decision, Context, LearnRecord], Outcome]


class Trials:
    """The decisions about a task that were carried out on trial.

    Args:
        carry_out: trains copies as a decision says.
        context: the task's context.

    Attributes:
        attempts: their results.
        seconds: wall time that this process has spent on them.
    """

    def __init__(self, carry_out: CarryOut, context: Context) -> None:
        self._carry_out, self._context = carry_out, context
        self._made: dict[str, tuple[Outcome, LearnRecord]] = {}
        self.attempts: list[Attempt] = []
        self.seconds = 0.0

    def make(self, decision: Decision) -> Attempt:
        """Carry out a decision on copies of what it would change.

        Its stages have their own folder, and the same seeds as if the decision had been made. If the rule returns a decision that was
        tried, perhaps with another reason, the result of the trial is adopted.

        Raises:
            LifelongError: the task has no validation images to compare attempts by.
        """
        context, name = self._context, _name(decision)
        record, started = LearnRecord(), time.perf_counter()
        outcome = self._carry_out(decision, context.within("attempts", name), record)
        self.seconds += time.perf_counter() - started
        accuracy = valid_accuracy(record)
        if math.isnan(accuracy):
            raise LifelongError(
                f"task '{context.task_name}' has no validation images, which this decision rule needs to compare its trials; "
                "give it some (valid_per_class), or use --decision thresholds"
            )
        self._made[name] = outcome, record
        modules = [outcome.head] if decision.decision == "reuse-expert" else [outcome.expert, outcome.head]
        self.attempts.append(Attempt(decision, accuracy, count_parameters(modules), sum(record.seconds.values())))
        return self.attempts[-1]

    def taken_over(self, decision: Decision, record: LearnRecord) -> Outcome | None:
        """Return the result of a decision that was tried, or None if it was not, and record the cost of the other trials."""
        others = [tried for name, (_, tried) in self._made.items() if name != _name(decision)]
        spent = {"attempts": sum(sum(tried.seconds.values()) for tried in others)} if others else {}
        record.seconds |= spent
        if _name(decision) not in self._made:
            return None
        outcome, tried = self._made[_name(decision)]
        record.decision = tried.decision or record.decision
        record.reason += tried.reason
        record.frozen = record.frozen or tried.frozen
        record.edges, record.undecided_edges, record.epochs = tried.edges, tried.undecided_edges, tried.epochs
        record.seconds |= tried.seconds
        if spent and "attempts" in tried.seconds:  # of an allocation that tries several starts
            record.seconds["attempts"] += spent["attempts"]
        record.hyperparameters |= tried.hyperparameters
        record.notes += [note for note in tried.notes if note not in record.notes]
        return outcome


def valid_accuracy(record: LearnRecord) -> float:
    """Return the validation accuracy that training reached; NaN without validation images."""
    accuracy = record.hyperparameters["valid_accuracy"]
    assert isinstance(accuracy, float)
    return accuracy


def copied(expert: nn.Module, trained: set[str]) -> nn.Module:
    """Copy an expert with its trained parameters; the others, which experts may share, are not copied."""
    common = {id(parameter): parameter for name, parameter in expert.named_parameters() if name not in trained}
    return copy.deepcopy(expert, common)


def _name(decision: Decision) -> str:
    """Return the name under which a decision is tried."""
    return decision.decision if decision.group is None else f"{decision.decision}-{decision.group}"
