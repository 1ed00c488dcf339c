"""How well runs do without task names, and how many images of sources that they never learned they flag.

    python results/task_agnostic.py TABLE.csv RUN_DIR [RUN_DIR ...] --unlike ADDRESS [ADDRESS ...] [--data DIR] [--weights FILE]

One row a run and source: from its summary the accuracy with and without task names, the share of images that find their task, and the share
of known images that are flagged (5 % by calibration on validation images); and of 500 test images of the source the share that is flagged,
brought to the run's size as the images of a stream are. Runs are made by small.sh and `lifelong run`.
"""

import argparse
import csv
import datetime
import sys
from pathlib import Path
from typing import Any

import torch

from lifelong.data.sources import Sources
from lifelong.experiment.compare import read_summaries
from lifelong.learner import Learner
from lifelong.reproduction.commit import commit
from lifelong.settings.run import Environment

IMAGES = 500


def main() -> int:
    """Read the command line and add the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--unlike", nargs="+", required=True, metavar="ADDRESS", help="sources that the runs have not learned")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    sources = Sources(Environment(data=options.data).data)
    rows = [row(run, source, sources, options.weights) for run in options.runs for source in options.unlike]
    fresh = not options.table.exists()
    with options.table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} rows added to {options.table}")
    return 0


def row(run: Path, source: str, sources: Sources, weights: Path | None) -> dict[str, Any]:
    """One run and one source."""
    (summary,) = read_summaries([run])
    learner = Learner.load(run, weights=weights)
    opened = sources.open(source)
    held = len(opened.labels("test"))
    chosen = torch.randperm(held, generator=torch.Generator().manual_seed(0))[:IMAGES]
    found = learner.predict(opened.images("test", chosen, learner.image_size))
    free = summary.task_agnostic
    return {
        "stream": summary.stream,
        "method": summary.method,
        "seed": summary.seed,
        "ap": f"{summary.ap:.4f}",
        "task_agnostic_ap": f"{free.mean_accuracy:.4f}",
        "routing": f"{free.mean_routing:.4f}",
        "routing_by_task": " ".join(f"{share:.3f}" for share in free.routing),
        "known_flagged": f"{free.mean_strange:.4f}",
        "unlike": source,
        "images": len(chosen),
        "unlike_flagged": f"{sum(bool(answer.strange) for answer in found) / len(found):.4f}",
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
