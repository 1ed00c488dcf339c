"""Propose the candidates of a tuned task: all combinations of a grid in order, or Optuna's trials."""

from abc import ABC, abstractmethod
from typing import Any

from lifelong.settings.tuning import Range, TuningSettings, Values


class Proposals(ABC):
    """The candidates of one task, each a deterministic function of the accuracies of earlier ones.

    Args:
        count: number of candidates.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    @abstractmethod
    def ask(self) -> dict[str, Any]:
        """Return the next candidate's values."""

    @abstractmethod
    def tell(self, accuracy: float) -> None:
        """Report the accuracy, in [0, 1], of the last candidate; 0 if it has no result."""


def propose(tuning: TuningSettings, seed: int) -> Proposals:
    """Return the candidates of one task.

    Args:
        tuning: the settings to tune, and their values.
        seed: seed of random proposals.
    """
    return Sampled(tuning, seed) if tuning.trials else Listed(tuning)


class Listed(Proposals):
    """Every combination in order."""

    def __init__(self, tuning: TuningSettings) -> None:
        combinations = tuning.combinations()
        super().__init__(len(combinations))
        self._left = iter(combinations)

    def ask(self) -> dict[str, Any]:
        """Return the next combination."""
        return next(self._left)

    def tell(self, accuracy: float) -> None:
        """Ignore the accuracy: nothing depends on it."""


class Sampled(Proposals):
    """Optuna's TPE (Bergstra et al., NeurIPS 2011): the first ten at random, then near those that were accurate."""

    def __init__(self, tuning: TuningSettings, seed: int) -> None:
        import optuna

        super().__init__(tuning.trials)
        # Otherwise it prints a greeting on stderr.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._grid = tuning.grid
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
        self._trial: Any = None

    def ask(self) -> dict[str, Any]:
        """Ask Optuna, which has been told the accuracies so far."""
        self._trial = self._study.ask()
        return {key: self._draw(key, values) for key, values in self._grid}

    def tell(self, accuracy: float) -> None:
        """See `Proposals.tell`."""
        self._study.tell(self._trial, accuracy)

    def _draw(self, key: str, values: Values) -> Any:
        if not isinstance(values, Range):
            return self._trial.suggest_categorical(key, values)
        if isinstance(values.low, int):
            return self._trial.suggest_int(key, values.low, values.high)
        return self._trial.suggest_float(key, values.low, values.high, log=values.low > 0)
