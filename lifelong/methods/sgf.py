"""SG-F: soft gating over frozen modules (Mendez & Eaton, ICLR 2021, arXiv 2007.07732), in the form in which LMC's code runs it
(Ostapenko et al., NeurIPS 2021), which is what PAR reports.

Every position l of a chain of blocks has a pool of modules, frozen once learned. A task mixes them, image by image, by gates of its own:

    x -> sum over j of s_j(x) m_j(x)                                          s = softmax(G_l(x)), of the pool's modules at that time

The first task trains a module for each position, and a head. For a later task candidates are searched from the top down: no new module;
a new one at the last position; at the last two; ...; at all. Each is trained separately: gates, head and new modules, with the pool
frozen, batch norm too. The best by validation accuracy is kept, on ties the one with fewest new modules (without validation images, the
one with none); its new modules join the pools. Gates of earlier tasks keep their width, so no answer for them changes by a bit.

Choices where the paper is silent, or where its code is not followed:

* Modules are the blocks of the light ResNet-18 (six candidates), or those of LMC's network, `conv4` (five). Blocks of all positions but
  the first take and give maps of the same channels, and pools are not shared between positions: inputs need not be padded with channels.
* A gate is two convolutions of stride 2 with batch norm, `gate_channels` wide, the average over their maps and a linear layer, and counts
  in M: 49,306 parameters in all where the light ResNet-18 has two modules at each position. (LMC's gates are larger than its network.)
  A pool of one module has no gate.
* All candidates of a task start from the same initial weights, where they have parts in common.
* Training is everyone's (SGD, a cosine, the best epoch); LMC's code uses Adam with a rate of 0.001.
* The paper trains its first four tasks jointly and shares modules across depth; here, as in LMC's code, it is one task and its own pools.
* Without augmentation the outputs of the first positions, as far as they have one module and no new one, are computed once per candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.methods.single import load_head
from lifelong.networks.blocks import make_chain
from lifelong.networks.frozen import freeze
from lifelong.networks.library import ModuleLibrary
from lifelong.networks.softgates import Gate, SoftPool
from lifelong.settings.growing import SGFSettings
from lifelong.storage import Tree
from lifelong.training.examples import image_examples
from lifelong.training.fit import FitOutcome
from lifelong.training.select import fit_selected
from lifelong.trees import weights_of


@dataclass(frozen=True)
class Candidate:
    """A trained candidate.

    Attributes:
        pools: for each position the modules with their gate; the last ones have a new module.
        head: of the task.
        outcome: of its training.
    """

    pools: list[SoftPool]
    head: nn.Linear
    outcome: FitOutcome


class SGF(Method[SGFSettings]):
    """Pools of frozen modules, mixed by gates of each task; new modules from the top down, as far as they help."""

    name = "sg-f"

    def __init__(self, settings: SGFSettings) -> None:
        super().__init__(settings)
        self.chain = make_chain(self.settings.backbone, self.settings.init_channels, stem_pool=self.settings.stem_pool)
        self.library = ModuleLibrary(self.chain.make, len(self.chain))
        self.widths: list[tuple[int, ...]] = []
        self.networks, self.heads = nn.ModuleList(), nn.ModuleList()

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the task's gates, the modules that they mix, and its head."""
        pools = zip(self.library.modules, self.widths[task_index], strict=True)
        return self.networks[task_index], *(module for pool, width in pools for module in pool[:width]), self.heads[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's gated modules and head to prepared images."""
        return self.heads[task_index](self.networks[task_index](inputs))

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Train every candidate, and keep the best."""
        before = self.num_parameters()
        record = LearnRecord(expert=len(self.tasks))
        best, added, seconds, epochs = None, 0, 0.0, 0
        candidates = range(len(self.chain) + 1) if self.tasks else [len(self.chain)]
        for new in candidates:
            candidate = self.candidate(new, task, context, record)
            seconds, epochs = seconds + candidate.outcome.seconds, epochs + candidate.outcome.epochs
            if best is None or candidate.outcome.accuracy > best.outcome.accuracy:
                best, added = candidate, new
        assert best is not None
        record.trained(replace(best.outcome, seconds=seconds, epochs=epochs))
        self._keep(best)
        self._remember(task)
        record.reason = f"new modules at the last {added} of {len(self.chain)} positions: the best of {len(candidates)} candidates"
        record.parameters_added = self.num_parameters() - before
        return record

    def candidate(self, new: int, task: Task, context: Context, record: LearnRecord) -> Candidate:
        """Train the candidate with new modules at the last `new` positions."""
        first = len(self.chain) - new
        pools = [self._fresh_pool(position, position >= first, context) for position in range(len(self.chain))]
        with context.seeded("head"):
            head = nn.Linear(self.chain.feature_dim, len(task.classes))
        trained = nn.Sequential(*pools, head).to(context.device)
        examples = image_examples(task, augmented=context.training.augment)
        # A pool of one frozen module, without a gate, has nothing to train.
        fixed = [] if examples.augmented else list(takewhile(lambda pool: not list(pool.parameters()), pools))
        if fixed:
            with context.timed("features", record):
                examples = examples.mapped(nn.Sequential(*fixed))
        predict = nn.Sequential(*pools[len(fixed) :], head)
        return Candidate(pools, head, fit_selected(trained, examples, predict, context.training, context.stage(f"train-{new}")))

    def _fresh_pool(self, position: int, new: bool, context: Context) -> SoftPool:
        """Make a pool of the frozen modules of a position, with a new one if asked, and a gate if there are several."""
        known = self.library.modules[position]
        with context.seeded(f"gate-{position}"):
            gate = self._gate(position, len(known) + new)
        with context.seeded(f"module-{position}"):
            module = self.chain.make(position) if new else None
        return SoftPool(known, module, gate)

    def _gate(self, position: int, width: int) -> Gate | None:
        inputs = self.chain.channels if position else 3
        return Gate(inputs, self.settings.gate_channels, width) if width > 1 else None

    def _keep(self, best: Candidate) -> None:
        """Freeze a candidate, and add its new modules to the pools."""
        freeze(*best.pools, best.head)
        for position, pool in enumerate(best.pools):
            if pool.new is not None:
                self.library.add(position, pool.new)
        widths = tuple(map(len, self.library.modules))
        self.widths.append(widths)
        self.networks.append(self._network(widths, [pool.gate for pool in best.pools]))
        self.heads.append(best.head)

    def _network(self, widths: Sequence[int], gates: Sequence[Gate | None]) -> nn.Sequential:
        """Make the network of a task, which holds only its gates."""
        pools = zip(self.library.modules, widths, gates, strict=True)
        return nn.Sequential(*(SoftPool(modules[:width], None, gate) for modules, width, gate in pools))

    def state_dict(self) -> Tree:
        """Return tasks, pools, and of each task its gates, how many modules they mix, and its head."""
        return {
            "tasks": self._tasks_state(),
            "library": self.library.state_dict(),
            "widths": self.widths,
            "gates": [weights_of(network) for network in self.networks],
            "heads": [weights_of(head) for head in self.heads],
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.library.load_state_dict(state["library"], device)
        self.widths = list(state["widths"])
        self.networks, self.heads = nn.ModuleList(), nn.ModuleList()
        for widths, weights, head in zip(self.widths, state["gates"], state["heads"], strict=True):
            network = self._network(widths, [self._gate(position, width) for position, width in enumerate(widths)]).to(device)
            network.load_state_dict(weights)
            freeze(network)
            self.networks.append(network)
            self.heads.append(load_head(head, device))
