"""PNN: Progressive Neural Networks (Rusu et al., 2016, arXiv 1606.04671).

Every task gets a column, a network of its own that also reads what the frozen columns of all earlier tasks make of the same image, by
laterals that are trained with it (Eq. 2; `lifelong.networks.progressive` has the formula):

    1. make column t next to columns 1 .. t-1; train its blocks, laterals and head by cross-entropy
    2. freeze them permanently; the head of its column answers for a task

Nothing is forgotten, and whatever was learned can be read. The price is size, which grows with the square of the number of tasks.

Choices where the paper is silent, or where code is not followed:

* Laterals stand at the four groups of the light ResNet-18 and at the head, as in the code of PAR's authors. Ten tasks of ten classes make
  12,441,951 parameters; `lateral` "copies" is the form of MNTDP's code, without adapters, and makes 33.3 million.
* Earlier columns are run as they were trained, with their own laterals, in evaluation mode. PAR's code feeds a new column with columns that
  are stripped of theirs, and leaves the affine weights of a new column's first batch norm untrained; here they are trained.
* The paper's nonlinearity follows the sum of a layer and its lateral. A block has its own at its end, and so has the lateral's.
* Every column is as wide as the first. The scales of sources start at 1, as in MNTDP's code; the paper draws small ones at random, and
  PAR's code draws them from a standard normal (`lateral_scales`).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.method import Context, Entangled, LearnRecord, Method
from lifelong.networks.blocks import make_chain
from lifelong.networks.frozen import freeze
from lifelong.networks.progressive import Column, outputs_of
from lifelong.settings.growing import PNNSettings
from lifelong.storage import Tree
from lifelong.training.examples import image_examples
from lifelong.training.select import fit_selected
from lifelong.trees import weights_of


class PNN(Method[PNNSettings]):
    """A column per task, which reads the frozen columns of earlier tasks."""

    name = "pnn"

    def __init__(self, settings: PNNSettings) -> None:
        super().__init__(settings)
        self.columns: list[Column] = []

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the task's column, and those before it without their heads."""
        return *(column.trunk for column in self.columns[:task_index]), self.columns[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute the logits of the task's column."""
        return self.columns[task_index](inputs, outputs_of(self.columns[:task_index], inputs))

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Train a new column."""
        before, earlier = self.num_parameters(), len(self.columns)
        with context.seeded("column"):
            column = self._make_column(len(task.classes), earlier).to(context.device)
        outcome = fit_selected(
            column,
            image_examples(task, augmented=context.training.augment),
            lambda inputs: column(inputs, outputs_of(self.columns, inputs)),
            context.training,
            context.stage("train"),
        )
        freeze(column)
        self.columns.append(column)
        self._remember(task)
        record = LearnRecord(expert=earlier, parameters_added=self.num_parameters() - before)
        record.reason = f"a column that reads those of {earlier} earlier tasks" if earlier else "first task: a column that reads no other"
        record.trained(outcome)
        return record

    def _make_column(self, classes: int, earlier: int) -> Column:
        settings = self.settings
        chain = make_chain(settings.backbone, settings.init_channels, stem_pool=settings.stem_pool)
        return Column(chain, classes, earlier, settings.lateral, settings.lateral_scales)

    def forgettable(self, task_index: int) -> Entangled | None:
        """Tell that later columns read the task's column; only the last one can be forgotten."""
        later = self._later(task_index)
        return Entangled("the columns of later tasks read its column", later) if later else None

    def _let_go(self, task_index: int) -> None:
        del self.columns[task_index]

    def state_dict(self) -> Tree:
        """Return tasks and columns."""
        return {"tasks": self._tasks_state(), "columns": [weights_of(column) for column in self.columns]}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.columns = []
        for task, weights in zip(self.tasks, state["columns"], strict=True):
            column = self._make_column(task.classes, len(self.columns)).to(device)
            column.load_state_dict(weights)
            freeze(column)
            self.columns.append(column)
