"""The two sizes of the GPU benchmark: the paper's, and one for a test on a CPU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of what is measured.

    Attributes:
        channels: C of cells.
        size: height and width of images, in pixels.
        batch: images in a step.
        images: training images of a task.
        steps: timed steps of each form.
        rounds: timed rounds of a search.
        earlier: earlier tasks whose prototypes a new task is measured against.
        epochs: of the trainings by which methods are compared between the devices.
        copied: bytes of the copies that measure memory bandwidth.
        tasks: tasks of the stream on which a run is killed.
        compiled: whether compiled networks are timed, which takes a minute to begin.
    """

    channels: int
    size: int
    batch: int
    images: int
    steps: int
    rounds: int
    earlier: int
    epochs: int
    copied: int
    tasks: int
    compiled: bool


FULL = Scale(channels=64, size=32, batch=64, images=4500, steps=200, rounds=3, earlier=100, epochs=4, copied=2**30, tasks=3, compiled=True)
TINY = Scale(channels=4, size=8, batch=8, images=32, steps=3, rounds=1, earlier=3, epochs=1, copied=2**20, tasks=2, compiled=False)
