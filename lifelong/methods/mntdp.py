"""The common part of both MNTDP variants (Veniat, Denoyer & Ranzato, ICLR 2021, arXiv 2012.12631): the library, the source, the paths.

A task is answered by a path: a chain of modules ending in the head. All modules learned so far are kept, frozen, in a library. A new task

1. picks a source, the earlier task whose path suits it best without training: the one on whose features, before the head, a k-nearest-
   neighbor classifier of the new training images gets the most validation images right (the first on ties);
2. considers the paths that follow the source for some modules and continue with new ones, from all new to all reused: seven for the six
   modules of the light ResNet-18. The last needs a head with as many classes as the task has;
3. learns which of them to take, by a full training of each (`mntdp_d.py`) or by a distribution over them (`mntdp_s.py`);
4. adds the new modules of that path to the library. Those of the others are dropped.

Earlier answers keep their bits: reused modules get no gradients and stay in evaluation mode.

Choices where the paper is silent, or where its code is not followed:

* One source, the paper's setting (its code has a number of them). Earlier tasks with the same path before the head are one candidate.
* Each path has new modules of its own, from its own initial weights; different paths have none in common but the library's.
* Of earlier tasks with equally accurate neighbors the first is the source; the code takes the last.
* The images that the neighbors are searched among are drawn at random: at most `knn_images` of either split, normalized as the new task's.
* Training is this library's, where the paper takes Adam with a grid of rates and decays. `weight_decay_grid` is that grid's part here.
"""

from abc import abstractmethod
from collections.abc import Hashable
from typing import TypeVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.devices import exact
from lifelong.errors import LifelongError
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.methods.single import load_head
from lifelong.networks.blocks import make_chain
from lifelong.networks.frozen import freeze
from lifelong.networks.library import ModuleLibrary, ModulePath
from lifelong.relatedness.neighbors import nearest_labels
from lifelong.search.paths import Candidate, candidate_paths
from lifelong.settings.growing import MNTDPSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, batched, image_examples
from lifelong.training.stages import derive_seed
from lifelong.trees import weights_of

TOGETHER = 64
"""Paths whose features are held at once, to be compared."""

MNTDPSettingsT = TypeVar("MNTDPSettingsT", bound=MNTDPSettings)


class MNTDP(Method[MNTDPSettingsT]):
    """A path of library modules per task, along the path of the most similar earlier task; a subclass chooses where to leave it."""

    def __init__(self, settings: MNTDPSettingsT) -> None:
        super().__init__(settings)
        self.chain = make_chain(self.settings.backbone, self.settings.init_channels, stem_pool=self.settings.stem_pool)
        self.library = ModuleLibrary(self.chain.make, len(self.chain))
        self.heads = nn.ModuleList()
        self.paths: list[ModulePath] = []
        self._chosen: list[tuple[nn.Module, ...]] = []
        """The modules of each path, which would take longer to look up, for a thousand tasks, than to compare."""

    @abstractmethod
    def choose(
        self, prefixes: list[nn.Sequential], columns: list[nn.Sequential], examples: Examples, context: Context, record: LearnRecord
    ) -> tuple[int, str]:
        """Train, and choose a path.

        Args:
            prefixes: for each path the frozen modules that it reuses; path k reuses k.
            columns: for each path its new modules, the head the last; none for a path that is all reused.
            examples: of the new task.
            context: for stages and training settings.
            record: gets what training came to.

        Returns:
            The path's number, whose column is trained now, and why it was taken.
        """

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the modules of the task's path."""
        return self._chosen[task_index]

    def form_of(self, task_index: int) -> Hashable | None:
        """Return how many features of how many classes the path's head has: the modules of a position are alike."""
        own = (type(self).logits, type(self).predict, type(self).modules) != (Method.logits, MNTDP.predict, MNTDP.modules)
        path = self.paths[task_index]
        return None if own else (len(path), *(self.heads[number].weight.shape for number in path[len(self.chain) :]))

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's path to the images."""
        return nn.Sequential(*self.modules(task_index))(inputs)

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Find a source, learn a path along it, and keep its new modules."""
        before = self.num_parameters()
        record = LearnRecord()
        examples = image_examples(task, augmented=context.training.augment)
        candidates, found = self._candidates(examples, len(task.classes), context, record)
        prefixes = [nn.Sequential(*self._reused(candidate.reused)) for candidate in candidates]
        columns = [self._column(candidate, len(task.classes), context) for candidate in candidates]
        chosen, why = self.choose(prefixes, columns, examples, context, record)
        record.reason = f"{found}; {len(candidates[chosen].reused)} of {self._positions} modules reused: {why}" if found else why
        self._keep(candidates[chosen], columns[chosen])
        self._remember(task)
        record.parameters_added = self.num_parameters() - before
        return record

    @property
    def _positions(self) -> int:
        return len(self.chain) + 1

    def _reused(self, path: ModulePath) -> list[nn.Module]:
        """Return the modules of a path or of a prefix of one."""
        blocks = len(self.chain)
        return [*self.library.chain(path[:blocks]), *(self.heads[number] for number in path[blocks:])]

    def _candidates(self, examples: Examples, classes: int, context: Context, record: LearnRecord) -> tuple[list[Candidate], str]:
        """Return the candidate paths and a description of their source."""
        if not self.tasks:
            return candidate_paths(self._positions, None), ""
        with context.timed("neighbors", record):
            source, score = self._source(examples, context)
        fits = self.tasks[source].classes == classes
        found = f"nearest neighbors are the most accurate, {score:.3f}, on the features of '{self.tasks[source].name}'"
        return candidate_paths(self._positions, self.paths[source], head_fits=fits), found

    def _source(self, examples: Examples, context: Context) -> tuple[int, float]:
        """Find the earlier task with the best features for the new one, and the nearest-neighbor accuracy on them."""
        if not len(examples.valid_labels):
            raise LifelongError(f"task '{context.task_name}' has no validation images, and {self.name} chooses by them; give it some")
        generator = torch.Generator().manual_seed(derive_seed(context.seed, context.task_index, "neighbors"))
        known, asked = (self._sample_positions(labels, generator) for labels in (examples.train_labels, examples.valid_labels))
        bodies: dict[ModulePath, int] = {}
        for index, path in enumerate(self.paths):
            bodies.setdefault(path[: len(self.chain)], index)
        scores: dict[int, float] = {}
        ordered = sorted(bodies)
        for start in range(0, len(ordered), TOGETHER):
            paths = ordered[start : start + TOGETHER]
            given, asked_for = (self._features(paths, images, examples) for images in (examples.train[known], examples.valid[asked]))
            for path, features, queries in zip(paths, given, asked_for, strict=True):
                answers = nearest_labels(features, examples.train_labels[known], queries, self.settings.knn_neighbors)
                scores[bodies[path]] = exact(answers == examples.valid_labels[asked]).mean().item()
        best = max(sorted(scores), key=scores.__getitem__)  # Of equal ones the first.
        return best, scores[best]

    def _features(self, paths: list[ModulePath], images: UInt8[Tensor, "n 3 h w"], examples: Examples) -> Float[Tensor, "p n d"]:
        """Compute the features of images along some paths."""
        found = batched(lambda inputs: torch.stack(self.library.along(paths, inputs), dim=1), images, examples.prepare)
        return found.movedim(1, 0).contiguous()

    def _sample_positions(self, labels: Int64[Tensor, "n"], generator: torch.Generator) -> Int64[Tensor, "m"]:
        """Sample positions of at most `knn_images` samples."""
        return torch.randperm(len(labels), generator=generator)[: self.settings.knn_images].to(labels.device)

    def _column(self, candidate: Candidate, classes: int, context: Context) -> nn.Sequential:
        """Make new modules for a path."""
        blocks = len(self.chain)
        with context.seeded(f"path-{len(candidate.reused)}"):
            modules = [self.chain.make(p) if p < blocks else nn.Linear(self.chain.feature_dim, classes) for p in candidate.fresh]
        return nn.Sequential(*modules).to(context.device)

    def _keep(self, candidate: Candidate, column: nn.Module) -> None:
        """Freeze the new modules of a path and remember it."""
        path = list(candidate.reused)
        for position, module in zip(candidate.fresh, column.children(), strict=True):
            if position < len(self.chain):
                path.append(self.library.add(position, module))
            else:
                freeze(module)
                self.heads.append(module)
                path.append(len(self.heads) - 1)
        self._follow(tuple(path))

    def _follow(self, path: ModulePath) -> None:
        """Give a path to the next task."""
        self.paths.append(path)
        self._chosen.append(tuple(self._reused(path)))

    def state_dict(self) -> Tree:
        """Return tasks, library, heads and paths."""
        return {
            "tasks": self._tasks_state(),
            "library": self.library.state_dict(),
            "heads": [weights_of(head) for head in self.heads],
            "paths": list(self.paths),
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.library.load_state_dict(state["library"], device)
        self.heads = nn.ModuleList(load_head(weights, device) for weights in state["heads"])
        self.paths, self._chosen = [], []
        for path in state["paths"]:
            self._follow(path)
