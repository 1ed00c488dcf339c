"""The model card of a run: README.md of its repository on the Hub, with front matter in the Hub's YAML, made from the record alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.report.exports import escape_markdown, markdown
from lifelong.report.page import Grid
from lifelong.report.wording import accuracy, clean, finite, parameters, sentence, size, without_names

MOST_TASKS = 200
MOST_CLASSES = 50
"""Rows of a table; more are counted."""


@dataclass(frozen=True)
class About:
    """What the card says besides the record.

    Attributes:
        name: of the model.
        run: how to name it in commands: "hub:OWNER/NAME", or a run directory.
        method: what the method does, in a few words.
        source: the method's paper.
        licence: of the model, as the Hub abbreviates it; None: none was given.
        extractor: whether inferring tasks needs a feature extractor that is not in the run.
    """

    name: str
    run: str
    method: str
    source: str
    licence: str | None = None
    extractor: bool = False


def model_card(summary: RunRecord, about: About) -> str:
    """Write the card of a run.

    Args:
        summary: of the run.
        about: what else it says.
    """
    parts = [_front(summary, about), f"# {escape_markdown(about.name)}", _first(summary, about), _learned(summary), _well(summary)]
    return "\n\n".join([*parts, *_recalls(summary), _use(summary, about), _images(summary), _limits(summary), _made(summary, about)]) + "\n"


def _front(summary: RunRecord, about: About) -> str:
    """Return the front matter. Every text in it is a JSON string, which is one in YAML as well."""
    lines = ["---", "library_name: lifelong", "pipeline_tag: image-classification"]
    if about.licence is not None:
        lines.append(f"license: {_yaml(about.licence)}")
    tags = ["lifelong", "lifelong-learning", "continual-learning", "image-classification", summary.method]
    lines += ["tags:", *(f"- {_yaml(tag)}" for tag in dict.fromkeys(tags)), "metrics:", "- accuracy"]
    judged = [(task, value) for task, value in zip(summary.tasks, _final(summary), strict=True) if value is not None]
    if judged:
        lines += ["model-index:", f"- name: {_yaml(about.name)}", "  results:"]
    for task, value in judged[:MOST_TASKS]:
        lines += [
            "  - task:",
            "      type: image-classification",
            f"      name: {_yaml(f'Image classification: {task.name}')}",
            "    dataset:",
            f"      type: {_yaml(summary.stream)}",
            f"      name: {_yaml(f'{summary.stream}: {task.name}')}",
            "      split: test",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {round(value, 6)}",
            f"      name: {_yaml('accuracy, with the task known')}",
        ]
    return "\n".join([*lines, "---"])


def _yaml(text: str) -> str:
    # Escaped, since YAML forbids some characters that JSON allows.
    return json.dumps(clean(text))


def _final(summary: RunRecord) -> list[float | None]:
    return [finite(value) for value in summary.accuracy[-1]] if summary.accuracy else []


def _first(summary: RunRecord, about: About) -> str:
    unfinished = "" if summary.complete else " The stream has not been learned to its end."
    return (
        "A lifelong learner of image classification: it has learned its tasks one after another, each from its own images alone. "
        f"{escape_markdown(sentence(summary))}{unfinished}\n\n"
        f"Method: {escape_markdown(about.method)} ([source](#how-it-was-made))."
    )


def _learned(summary: RunRecord) -> str:
    words = ("task", "classes", "train / valid / test", "image", "decision")
    rows = []
    for number, (task, value) in enumerate(zip(summary.tasks, _final(summary), strict=True), 1):
        images = f"{task.train:,} / {task.valid:,} / {task.test:,}"
        floor = None if task.judged is None else task.judged.majority
        names = _names(task.classes)
        rows.append(
            [f"{number}. {task.name}", names, images, f"{task.image_size} px", task.decision or "", accuracy(value), accuracy(floor)]
        )
    grid = Grid(["task", "classes", "train / valid / test", "image", "decision", "accuracy", "largest class"], rows[:MOST_TASKS], words)
    more = f"\n{len(rows) - MOST_TASKS:,} more tasks are in summary.json.\n" if len(rows) > MOST_TASKS else ""
    return (
        "## What it has learned\n\n"
        f"{markdown(grid)}{more}\n"
        "Accuracy is on the task's test images at the end, with the task known. *Largest class* is what one would reach by always answering"
        " with the most frequent class of the test images."
    )


def _names(classes: Sequence[str]) -> str:
    return ", ".join(classes[:10]) + (f", and {len(classes) - 10} more" if len(classes) > 10 else "")


def _well(summary: RunRecord) -> str:
    rows = [
        ["average performance (AP): mean accuracy over tasks", accuracy(summary.ap)],
        ["average forgetting (AF): mean change of a task's accuracy since it was learned; negative: forgotten", accuracy(summary.af)],
        ["accuracy over all test images", accuracy(summary.weighted_accuracy)],
        ["parameters", parameters(summary.parameters)],
        ["bytes of all that is kept", size(summary.bytes)],
    ]
    text = f"## How well\n\n{markdown(Grid(['measure', 'value'], rows))}"
    words = without_names(summary)
    return text + (f"\n{escape_markdown(words)}" if words else "\nHow well tasks are told apart was not measured.")


def _recalls(summary: RunRecord) -> list[str]:
    """Return a section with the recall of each class, if it was recorded."""
    rows: list[list[str]] = []
    for task in summary.tasks:
        recall = None if task.judged is None else task.judged.recall
        rows += [[task.name, name, accuracy(value)] for name, value in zip(task.classes, recall or (), strict=False)]
    if not rows:
        return []
    ordered = rows
    more = ""
    if len(rows) > MOST_CLASSES:
        ordered = sorted(rows, key=lambda row: row[2])[:MOST_CLASSES]
        more = f"\nThe {MOST_CLASSES} lowest of {len(rows):,}; all are in summary.json.\n"
    grid = Grid(["task", "class", "recall"], ordered, ("task", "class"))
    return [f"### Recall of classes\n\nThe share of a class's test images that is answered rightly.\n\n{markdown(grid)}{more}".rstrip()]


def _use(summary: RunRecord, about: About) -> str:
    run = about.run
    loads = f'lifelong.Learner.load("{run}", download=True)' if run.startswith("hub:") else f'lifelong.Learner.load("{run}")'
    download = " --download" if run.startswith("hub:") else ""
    task = summary.tasks[0].name if summary.tasks else "TASK"
    extra = "[hub]" if run.startswith("hub:") else ""
    note = (
        "\n\nTo infer the task of an image it needs its feature extractor "
        f"(`{escape_markdown(summary.extractor or '')}`): add `--weights FILE` (`weights=FILE`), or name the task."
        if about.extractor
        else ""
    )
    return (
        "## How to use it\n\n"
        f"```bash\npip install 'lifelong{extra}'\nlifelong predict {run} photo.jpg{download}\n```\n\n"
        "```python\nimport lifelong\n\n"
        f"learner = {loads}\n"
        'for answer in learner.predict(["photo.jpg"]):  # or arrays, PIL images, folders\n'
        "    print(answer.task, answer.label, answer.probability)\n"
        f"learner.predict(images, task={json.dumps(clean(task))})  # where the task is known\n```"
        f"{note}"
    )


def _images(summary: RunRecord) -> str:
    lines = [f"- Stream: {escape_markdown(summary.stream)}, seed {summary.seed}, fingerprint `{_code(summary.stream_fingerprint)}`"]
    if summary.stream_content is not None:
        lines += [f"- Source {escape_markdown(name)}: checksum `{_code(value)}`" for name, value in summary.stream_content.sources.items()]
    return "## What it was learned from\n\n" + "\n".join(lines) + "\n\nNo image is part of this repository."


def _code(text: str | None) -> str:
    return "".join(letter for letter in clean(text or "not recorded") if letter.isalnum() or letter in " -_.")


def _limits(summary: RunRecord) -> str:
    sizes = sorted({task.side for task in summary.tasks})
    small = [task.name for task in summary.tasks if task.test and task.test < 10 * len(task.classes)]
    lines = [
        "It answers with a class of a task it has learned, whatever an image shows. Images of other kinds are not recognized as such, "
        "except where the method flags them as unlike anything learned.",
        "Accuracies hold where the task of an image is known. Without it they are lower (above, as far as measured).",
        f"Images are resized to {' or '.join(map(str, sizes))} pixels a side; details smaller than that are lost." if sizes else "",
        "Each accuracy is of one run with one seed, on test images from the same source as the training images. Other cameras, places and "
        "times were not tested.",
        "Whether it treats groups of people alike was not examined. Do not use it to decide about people.",
        f"Few test images per class: the accuracies of {', '.join(small)} are rough." if small else "",
        "What it keeps of classes (weights, means of features) may reveal something of the images it was learned from.",
        *(note for note in dict.fromkeys([*(summary.notes or ()), *_task_notes(summary.tasks)])),
    ]
    return "## Limits\n\n" + "\n".join(f"- {escape_markdown(line)}" for line in lines if line)


def _task_notes(tasks: Sequence[TaskRecord]) -> list[str]:
    return [note for task in tasks for note in task.notes or ()]


def _made(summary: RunRecord, about: About) -> str:
    made = [
        ("method", f"{summary.method}: {about.method}"),
        ("source", about.source),
        ("preset", summary.preset or ""),
        ("feature extractor", summary.extractor or "none"),
        ("computed on", f"{summary.device or ''}, {summary.precision or ''}, {summary.machine or ''}"),
        ("lifelong", summary.version or ""),
        ("PyTorch", summary.torch or ""),
        ("time", "" if summary.seconds is None else f"{summary.seconds / 60:.1f} min"),
    ]
    rows = [[key, value] for key, value in made if value]
    return (
        "## How it was made\n\n"
        f"{markdown(Grid(['', ''], rows, ('',)))}\n"
        "All settings are in `config.toml`, all numbers in `summary.json`. `lifelong run --config config.toml` repeats the run, given its "
        "images. Please cite the paper of the method."
    )
