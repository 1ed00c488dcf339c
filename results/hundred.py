"""Print a stream of 100 tasks of two classes at 64 x 64, to measure what is exported: see results/bundle.py. Accuracy is not the point.

python results/hundred.py [task] > hundred.toml

All tasks have one normalization, as in production; with `task` each has its own.
"""

import itertools
import sys


def stream(normalize: str) -> str:
    """Return the stream as TOML, near and far tasks in turn."""
    pairs = list(itertools.combinations(range(10), 2))
    known = [(source, pair) for source in ("cifar10", "fashion_mnist") for pair in pairs]
    known += [("parquet:dtd10", (label, (label + 1) % 10)) for label in range(10)]
    lines = ['name = "hundred-64"', "image_size = 64", f'normalize = "{normalize}"']
    for number, place in enumerate(sorted(range(100), key=lambda place: place * 37 % 100), 1):
        source, classes = known[place]
        lines += ["[[task]]", f'name = "task {number}"', f'source = "{source}"', f"classes = [{classes[0]}, {classes[1]}]"]
        lines += ["train_per_class = 20", "valid_per_class = 10", "test_per_class = 10", "overlap = true"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(stream("task" if sys.argv[1:] == ["task"] else "imagenet"))
