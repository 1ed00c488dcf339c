"""``python -m lifelong.runtime BUNDLE IMAGE ...``: predict with an exported bundle."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields

from lifelong.data.given import given_images
from lifelong.errors import LifelongError, one_line
from lifelong.prediction import Prediction
from lifelong.runtime.bundle import Bundle

EMPTY = [field.name for field in fields(Prediction) if field.name != "image"]
"""What a row of an unusable image lacks."""


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line, and print a line for each image."""
    parser = argparse.ArgumentParser(prog="python -m lifelong.runtime", description="Predict with an exported bundle.")
    parser.add_argument("bundle", help="folder written by lifelong export RUN --bundle")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--task", help="task of the images; without it, the task of each image is inferred")
    parser.add_argument("--infer", choices=("auto", "method", "confidence"), default="auto", help="how to infer the task")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (0: one per core)")
    parser.add_argument("--skip-broken", action="store_true", help="skip unusable images instead of failing")
    parser.add_argument("--json", action="store_true", help="print everything, machine-readable")
    options = parser.parse_args(words)
    rows = []
    try:
        bundle = Bundle(options.bundle, options.threads)
        for one, answer in bundle.predict_each(given_images(options.images), options.task, options.infer, skip_broken=options.skip_broken):
            if isinstance(answer, str):
                rows.append({"image": one.name} | dict.fromkeys(EMPTY) | {"error": answer})
                said = f"not usable: {answer}"
            else:
                rows.append({"image": one.name} | asdict(answer) | {"error": None})
                said = f"{answer.task}: {answer.label} ({answer.probability:.3f})" + (", unlike anything learned" if answer.strange else "")
            if not options.json:
                print(one_line(f"{one.name}: {said}"))
    except LifelongError as error:
        print(f"lifelong: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
