"""An engine of one's own: each run in a process that a command starts, as the batch system of a cluster does.

lifelong compare --stream digits --methods finetune,ewc --preset quick --workers 2 --plugin examples/new_engine.py --engine commands
"""

import subprocess
import tempfile
import time
from pathlib import Path

import lifelong


class Commands:
    """Starts `python -m lifelong.experiment JOB.json` for each job; the files of all jobs lie in one folder."""

    def run(self, jobs, workers, begin):
        """Carry out jobs, `workers` at once; see `lifelong.Engine`."""
        waiting, going = list(enumerate(jobs)), {}
        with tempfile.TemporaryDirectory() as folder:
            try:
                while waiting or going:
                    while waiting and len(going) < workers:
                        position, job = waiting.pop(0)
                        file = Path(folder) / f"{position}.json"
                        going[position] = subprocess.Popen(job.command(file)), job, file, begin(position)
                    for position, (process, job, file, observer) in list(going.items()):
                        if process.poll() is not None:
                            del going[position]
                            outcome = job.outcome(file)
                            if outcome.summary is not None:
                                observer.run_finished(outcome.summary)
                            yield position, outcome
                    time.sleep(0.1)
            finally:
                for process, *_ in going.values():
                    process.terminate()
                    process.wait()


lifelong.register_engine("commands", Commands, summary="a command for each run")
