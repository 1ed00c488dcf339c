"""Choose the weight decay on the validation images of the current task."""

import time
from dataclasses import replace

from torch import nn

from lifelong.errors import DivergedError
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import FitOutcome, Loss, Predict, Update, fit
from lifelong.training.stages import Stage


def fit_selected(
    module: nn.Module,
    examples: Examples,
    predict: Predict,
    settings: TrainingSettings,
    stage: Stage,
    *,
    loss: Loss | None = None,
    update: Update | None = None,
) -> FitOutcome:
    """Run `fit` with each weight decay of the grid from the same start, and keep the best by validation accuracy (the first on ties).

    With an empty grid this is `fit`. Arguments as for `fit`; the seconds and epochs of all candidates are summed, since all were spent.
    A candidate that diverges is dropped, and named in the outcome.

    Raises:
        LifelongError: as `fit`; of divergence only if every candidate diverges.

    Source: PAR section 4.1 (grid 0.0003, 0.001, 0.003, 0.01 by validation performance).
    """
    grid = settings.weight_decay_grid
    if not grid:
        return fit(module, examples, predict, settings, stage, loss=loss, update=update)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    best, weights = None, start
    seconds, epochs = 0.0, 0
    failures: dict[float, DivergedError] = {}
    for decay in grid:
        module.load_state_dict(start)
        candidate = replace(stage, name=f"{stage.name}-wd{decay:g}")
        started = time.perf_counter()
        try:
            outcome = fit(module, examples, predict, replace(settings, weight_decay=decay), candidate, loss=loss, update=update)
        except DivergedError as error:
            failures[decay] = error
            seconds, epochs = seconds + time.perf_counter() - started, epochs + error.epoch
            continue
        seconds, epochs = seconds + outcome.seconds, epochs + outcome.epochs
        if best is None or outcome.accuracy > best.accuracy:
            best = outcome
            weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    if best is None:
        raise failures[grid[-1]]
    module.load_state_dict(weights)
    module.eval()
    return replace(best, seconds=seconds, epochs=epochs, diverged=list(failures))
