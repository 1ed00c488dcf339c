"""Specify streams of a user's own images, named by their place.

A folder of tasks is a stream as it stands: `folder:PATH` with `PATH/<task>/<class>/*` or `PATH/<task>/<train|valid|test>/<class>/*`; its
tasks are learned in the natural order of their names. One data set of any kind becomes a stream when its classes are cut into tasks:
`folder:PATH?tasks=4`, `hub:ID?tasks=5`, `csv:FILE?tasks=2`, in an order of the classes that the seed draws.
"""

from pathlib import Path

from lifelong.data.address import Address, parse_address
from lifelong.data.files import folders_in
from lifelong.data.naming import class_name, shown
from lifelong.data.sources import Sources
from lifelong.data.split_names import are_splits, is_word, split_of
from lifelong.errors import LifelongError
from lifelong.streams.deal import even
from lifelong.streams.selection import generator
from lifelong.streams.spec import StreamSpec, TaskSpec

IMAGE_SIZE = 64
"""Height and width unless `size` is given; photographs need more than the 32 of the benchmarks."""


def user_stream(name: str, seed: int, sources: Sources) -> StreamSpec:
    """Specify the stream of an address.

    Args:
        name: the address, with `tasks=K` and `size=PIXELS` among its options if wanted.
        seed: draws the order of the classes that are cut into tasks.
        sources: opens the images.

    Raises:
        LifelongError: there are no such images, or it is not clear how they form tasks.
    """
    address = parse_address(name, stream=True)
    if "tasks" in address.options:
        return _cut_classes(address, seed, sources)
    if address.kind != "folder":
        raise LifelongError(
            f"stream '{name}': one data set is not a stream yet; say into how many tasks to cut its classes, for example"
            f" '{name}{'&' if address.options else '?'}tasks=5', or describe the tasks in a TOML file"
        )
    return _folder_of_tasks(address, sources)


def _folder_of_tasks(address: Address, sources: Sources) -> StreamSpec:
    root = sources.place(address)
    assert root is not None
    inside = folders_in(root)
    if not inside:
        raise LifelongError(f"stream '{address.name}': {root} holds no folders; arrange it as {root.name}/TASK/CLASS/*")
    named = [name for name in inside if is_word(name)] if are_splits(inside) or any(split_of(name) == "train" for name in inside) else []
    flat = [name for name in inside if not folders_in(root / name)]
    if named or len(flat) == len(inside):
        raise LifelongError(
            f"stream '{address.name}': {root} holds {'splits' if named else 'classes'} ('{shown((named or flat)[0])}', ...) where a stream"
            " holds tasks: one folder per task, with one folder per class in it; or cut its classes into tasks:"
            f" 'folder:{address.where}?tasks=2'"
        )
    if flat:
        raise LifelongError(
            f"stream '{address.name}': the task '{shown(flat[0])}' in {root} holds no folders;"
            " make one for each of its classes, or remove it"
        )
    tasks = []
    for folder in inside:
        task = class_name(folder)
        if task is None:
            raise LifelongError(f"{root}: the folder '{shown(folder)}' has a name that cannot be printed; rename it")
        tasks.append(TaskSpec(task, address.of_source(str((root / folder).resolve())), image_size=_size(address)))
    return StreamSpec(_name(address), tuple(tasks))


def _cut_classes(address: Address, seed: int, sources: Sources) -> StreamSpec:
    """Cut one data set's classes, in an order drawn by the seed, into tasks of nearly equal size."""
    where = address.of_source()
    source = sources.open(where)
    count, classes = int(address.options["tasks"]), len(source.classes)
    if 2 * count > classes:
        raise LifelongError(
            f"stream '{address.name}': {classes} classes make at most {classes // 2} tasks of 2 or more; lower tasks={count}"
        )
    order = generator(seed, "classes", *source.classes).permutation(classes).tolist()
    tasks, first = [], 0
    for number, share in enumerate(even(classes, count), 1):
        ids = tuple(source.numbers[place] for place in order[first : first + share])
        tasks.append(TaskSpec(f"{_name(address)} {number}", where, ids, image_size=_size(address)))
        first += share
    options = "&".join(f"{key}={value}" for key, value in sorted(address.options.items()))
    return StreamSpec(_name(address), tuple(tasks), drawn_from=f"{address.kind}:{options}")


def _size(address: Address) -> int:
    return int(address.options.get("size", IMAGE_SIZE))


def _name(address: Address) -> str:
    """Name the stream by the last part of its path, without the extension of a file."""
    place = Path(address.where).expanduser().resolve()
    return address.where if address.kind == "hub" else place.stem if address.kind == "csv" else place.name
