"""What is predicted for one image."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        task: the given task, or the most likely one.
        label: most likely class of this task.
        probability: probability of this class, from the task's head.
        classes: probability of every class of the task, most likely first.
        tasks: probability of every task, most likely first; None if the task was given.
        strange: whether the image is unlike anything learned: farther out than 95 % of the validation images of every task; None if the
            method cannot tell.
        image: path of the image, or its position among the given ones.
    """

    task: str
    label: str
    probability: float
    classes: dict[str, float]
    tasks: dict[str, float] | None
    strange: bool | None
    image: str = field(default="", compare=False)

    @property
    def task_probability(self) -> float | None:
        """Probability of the predicted task; None if the task was given."""
        return None if self.tasks is None else self.tasks[self.task]
