"""Peak memory of the main job: PAR on the embedded digits, as `make run` starts it, in a process of its own.

Not a ratio against another program: `ratio` is the limit of 1.2 GB over what was needed.

    python -m benchmarks.memory [--quick]
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 1.2e9


def main(quick: bool = False) -> dict[str, object]:
    """Run it and read the peak that the run itself recorded.

    Args:
        quick: two epochs of everything; the peak is the same but for the loop's own tensors.

    Returns:
        name, limit over peak, seconds of the run, and a description with the peak.
    """
    short = ["--epochs", "2", "--search-epochs", "2"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "lifelong", "compare", "--stream", "digits", "--preset", "quick", "--out", str(out), *short]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        peak = max(json.loads(file.read_text())["peak_memory_bytes"] for file in out.glob("*/summary.json"))
    detail = f"peak {peak / 1e9:.2f} GB against a limit of {LIMIT / 1e9:g} GB: ratio = limit / peak; ours = seconds of the whole comparison"
    figures = {"ratio": LIMIT / peak, "ours_s": seconds, "plain_s": float("nan"), "parity": 0.0}
    return {"name": "memory of make run", **figures, "detail": detail}


if __name__ == "__main__":
    print(main(quick="--quick" in sys.argv))
