"""A plain PyTorch loop's side: finetuning as a person writes it first. Needs nothing but PyTorch.

`DataLoader` without worker processes, one transform per image, one unfused update per parameter. Like the others it judges validation
images after every epoch and test images of all tasks so far after every task, and it keeps the weights of the best epoch.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.job import LR, MEAN, MOMENTUM, PAD, STD, WEIGHT_DECAY, Job, Turns, read_job


class Images(Dataset):
    """Images that are prepared one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, *, augmented: bool) -> None:
        self.images, self.labels, self.augmented = images, labels, augmented
        self.mean, self.std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.augmented:
            size = image.shape[-1]
            top, left = torch.randint(2 * PAD + 1, (2,)).tolist()
            image = F.pad(image, (PAD, PAD, PAD, PAD))[:, top : top + size, left : left + size]
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
        return (image.float() / 255 - self.mean) / self.std, self.labels[index]


def loader(job: Job, task: int, split: str) -> DataLoader:
    """Iterate over a split of a task in batches."""
    training = split == "train"
    return DataLoader(Images(*job.split(task, split), augmented=training), batch_size=job.batch, shuffle=training)


def accuracy(network: nn.Module, head: nn.Module, batches: DataLoader) -> float:
    """Share of images whose class is found."""
    network.eval()
    with torch.no_grad():
        found = [(head(network(images)).argmax(1) == labels).float() for images, labels in batches]
    return torch.cat(found).mean().item()


def learn(network: nn.Module, head: nn.Module, job: Job, task: int) -> None:
    """Train on one task."""
    train, valid = loader(job, task, "train"), loader(job, task, "valid")
    model = nn.Sequential(network, head)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, job.epochs)
    best, weights = -1.0, {}
    for _ in range(job.epochs):
        model.train()
        for images, labels in train:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
        schedule.step()
        found = accuracy(network, head, valid)
        if found > best:
            best, weights = found, deepcopy(model.state_dict())
    model.load_state_dict(weights)


def main() -> None:
    """Learn the job's tasks, turn by turn."""
    job, turns = read_job(), Turns()
    network, heads, accuracies = job.network(), [], []
    turns.ready({"torch": torch.__version__}, job.first_features(network))
    for task in range(job.tasks):
        heads.append(nn.Linear(job.channels, job.classes))
        learn(network, heads[task], job, task)
        accuracies = [accuracy(network, head, loader(job, index, "test")) for index, head in enumerate(heads)]
        turns.learned()
    turns.done(sum(accuracies) / len(accuracies))


if __name__ == "__main__":
    main()
