"""What the package asks for: the versions of `make test-oldest` are the lowest that it allows."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.parquet_files import numbered, png, write_parquet

ROOT = Path(__file__).parent.parent


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at the end."""
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


WITHOUT_EXTRAS = """
import sys
extras = ["datasets", "huggingface_hub", "sklearn"]
came_with_them = ["pandas", "scipy", "joblib", "tqdm", "requests", "httpx", "dill", "multiprocess", "xxhash"]
sys.modules |= dict.fromkeys(extras + came_with_them)  # None: as if they were not installed
from lifelong.cli import main
quick = ["--method", "finetune", "--preset", "quick", "--epochs", "1", "--device", "cpu", "--json"]
print(main(["run", "--stream", "digits?tasks=2", *quick, "--out", "digits"]), file=sys.stderr)
print(main(["run", "--stream", "parquet:here?tasks=2", *quick, "--out", "parquet"]), file=sys.stderr)
print(main(["run", "--stream", "hub:me/mine?tasks=2", *quick, "--out", "hub", "--download"]), file=sys.stderr)
print(main(["distances", "--stream", "digits?tasks=2", "--extractor", "resnet18", "--download", "--json"]), file=sys.stderr)
"""


def test_without_the_extras(tmp_path: Path) -> None:
    """The core needs none of them; what does says in one line what to install."""
    (tmp_path / "here").mkdir()
    images = [png(pixels) for pixels in numbered(40, 8)]
    write_parquet(tmp_path / "here" / "train-0.parquet", images, {"label": [index % 4 for index in range(40)]})
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LIFELONG_CACHE": str(tmp_path / "cache")}
    environment.pop("LIFELONG_WEIGHTS", None)
    command = [sys.executable, "-c", WITHOUT_EXTRAS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    lines = done.stderr.splitlines()
    codes = [line for line in lines if line.isdigit()]
    said = [line for line in lines if line.startswith("lifelong: ")]
    assert codes == ["0", "0", "2", "2"], done.stderr
    assert len(said) == 2
    assert "(me/mine) needs the packages datasets and huggingface_hub: pip install 'lifelong[hub]'; or give its files with" in said[0]
    assert "weights timm/resnet18.tv_in1k/model.safetensors needs the package huggingface_hub: pip install 'lifelong[hub]'" in said[1]


def test_the_oldest_versions_are_the_lowest_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    learn = [line for line in extras["dev"] if line.startswith("scikit-learn")]  # what tests compare with
    asked = [re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in [*project["dependencies"], *extras["hub"], *extras["onnx"], *learn]]
    lines = [line for line in (ROOT / "constraints-oldest.txt").read_text().splitlines() if not line.startswith("#")]
    assert None not in asked
    assert {match[1]: release(match[2]) for match in asked if match} == {
        name: release(version) for name, version in (line.split("==") for line in lines)
    }
