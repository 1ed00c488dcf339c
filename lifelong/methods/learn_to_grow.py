"""Learn to Grow (Li, Zhou, Wu, Socher & Xiong, ICML 2019, arXiv 1904.00310), with reused layers fixed.

For each convolution l of the light ResNet-18, with the variants S_l that earlier tasks have left, a new task has 2 |S_l| + 1 choices:

    reuse   S_i(x)                          as it is
    adapt   S_i(x) + A_i(x)                 A_i: a new 1x1 convolution of the same stride
    new     N(x)                            a new convolution

1. Relax: x -> sum over choices c of softmax(alpha_l)_c g_c(x), and learn alpha (`lifelong.search.growth`), each choice at its price.
2. Take the heaviest choice of each convolution, make the network of these, and train what is new in it on all training images.

Batch norms and head are each task's own. What earlier tasks use is frozen, so no answer for them changes by a bit. The first task has no
choice: it trains an ordinary network, whose convolutions are the first variants.

Choices where the paper is silent, or where its code is not followed:

* The weights of the search are dropped: new convolutions, adapters and head are initialized afresh, since the network of the chosen path
  differs from the relaxed network. A batch norm after a reused or adapted variant starts as a copy of the one the variant was trained
  with, so that a task that reuses all of an earlier network starts with its features.
* An adapter is added to the layer it adapts also in the chosen network. (PAR's authors' code then runs the adapter alone.)
* An adapted convolution is a variant for later tasks, which may reuse it, or adapt it once more. Adapters have no biases, as batch norm
  follows; that of the stem has 3 channels to read, and is small.
* The price is that of PAR's code, log10(1 + parameters added) times `size_weight`; batch norms and head, the same for all choices, are not
  counted. With the default of 0.01 a network that is all new costs 0.87 at 64 channels, as much as a cross-entropy may fall. PAR's code
  has a default of 1, with which a task reuses everything, and asks in its run file for 0.
* Alpha begins at zero, all choices weighing the same, and the last epoch's choices are taken. PAR's code begins at random and goes back to
  the best epoch (`search_start`, `search_kept`). On ties to reuse comes before to adapt, and that before a new one.
* The paper's "tune" form, in which reused layers are trained on under a penalty, is left out: earlier answers would change.
"""

from collections import Counter
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.methods.single import load_head, new_head
from lifelong.networks.frozen import freeze
from lifelong.networks.growing_resnet import CONVOLUTIONS, NEW, Choice, ChoicePath, GrowingResNet
from lifelong.networks.resnet import LightResNet
from lifelong.search.growth import search_growth
from lifelong.settings.growing import LearnToGrowSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, image_examples
from lifelong.training.select import fit_selected
from lifelong.trees import weights_of


class LearnToGrow(Method[LearnToGrowSettings]):
    """A task reuses, adapts or adds each convolution, as chosen by a search."""

    name = "learn-to-grow"

    def __init__(self, settings: LearnToGrowSettings) -> None:
        super().__init__(settings)
        self.paths: list[ChoicePath] = []
        self._start()

    def _start(self) -> None:
        """Reset to no tasks."""
        self.grown = GrowingResNet(self.settings.init_channels, stem_pool=self.settings.stem_pool)
        self.networks, self.heads = nn.ModuleList(), nn.ModuleList()

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the task's network, the variants it borrows, and its head."""
        return self.networks[task_index], *self.grown.borrowed(self.paths[task_index]), self.heads[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's network and head to prepared images."""
        return self.heads[task_index](self.networks[task_index](inputs))

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Search a path, then train its network."""
        before = self.num_parameters()
        record = LearnRecord(expert=len(self.tasks))
        examples = image_examples(task, augmented=context.training.augment)
        path = self._search(examples, task, context, record) if self.tasks else (NEW,) * len(CONVOLUTIONS)
        with context.seeded("network"):
            network = self.grown.network(path).to(context.device)
        head = new_head(network, task, context)
        trained = nn.Sequential(network, head)
        outcome = fit_selected(trained, examples, trained, context.training, context.stage("train"))
        record.trained(outcome)
        freeze(head)
        self._keep(network, head)
        self.paths.append(path)
        self._remember(task)
        kinds = Counter(choice.kind for choice in path)
        chosen = f"of {len(path)} convolutions {kinds['reuse']} are reused, {kinds['adapt']} adapted and {kinds['new']} new"
        record.reason = "; ".join([chosen, *([record.reason] if record.reason else [])])
        record.parameters_added = self.num_parameters() - before
        return record

    def _search(self, examples: Examples, task: Task, context: Context, record: LearnRecord) -> ChoicePath:
        """Search a path (step 1) and drop the search network; the record's reason says how confident the search is."""
        stage = context.stage("search")
        with context.seeded("search"):
            supernet = self.grown.supernet()
            relaxed = nn.Sequential(supernet, nn.Linear(supernet.feature_dim, len(task.classes))).to(context.device)
        found = search_growth(relaxed, examples, self.settings, context.training, stage)
        record.seconds["search"] = found.seconds
        heaviest, even = (fmean(share) for share in zip(*((float(w.max()), 1 / len(w)) for w in found.weights), strict=True))
        record.reason = f"the choices weigh {heaviest:.3f} on average, {even:.3f} if nothing had been learned"
        return found.path

    def _keep(self, network: LightResNet, head: nn.Module) -> None:
        self.grown.keep(network)
        self.networks.append(network)
        self.heads.append(head)

    def state_dict(self) -> Tree:
        """Return tasks, paths, and what each task's network holds."""
        return {
            "tasks": self._tasks_state(),
            "paths": [[(choice.kind, choice.variant) for choice in path] for path in self.paths],
            "networks": [weights_of(network) for network in self.networks],
            "heads": [weights_of(head) for head in self.heads],
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self._start()
        self.paths = [tuple(Choice(*choice) for choice in path) for path in state["paths"]]
        # In the order of tasks: a network borrows modules of earlier ones.
        for path, weights, head in zip(self.paths, state["networks"], state["heads"], strict=True):
            network = self.grown.network(path).to(device)
            network.load_state_dict(weights)
            self._keep(network, load_head(head, device))
