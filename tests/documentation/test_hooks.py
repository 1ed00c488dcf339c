"""What is made when the site is built: equations, tables of settings and results, links that leave `docs/`."""

import importlib.util
from pathlib import Path
from types import ModuleType

import markdown
import pytest

from lifelong.api import configure
from lifelong.settings.fields import settings_of
from lifelong.settings.par import PARSettings
from lifelong.settings.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hook_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_equation_becomes_mathml() -> None:
    equations = hook("equations")
    html = markdown.markdown("with $`a_i < 2`$, not `$x$`", extensions=[equations.Equations()])
    assert "<msub><mi>a</mi><mi>i</mi></msub>" in html.replace("\n", "")
    assert "&#x0003C;" in html or "&lt;" in html
    assert "<code>$x$</code>" in html
    assert 'display="block"' in equations.block(r"\frac{1}{2}", "math", "equation", {}, None)


HEADER = "stream,method,seed,ap,af,parameters,memory_bytes,minutes,complete,command\n"


def write(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def test_seeds_of_one_measurement_make_one_row(tmp_path: Path) -> None:
    table = write(
        tmp_path / "small.csv",
        "digits,ewc,0,0.5,-0.10,20000,0,1.0,True,lifelong run --epochs 5 --seed 0 --method ewc",
        "digits,ewc,1,0.7,-0.30,20000,0,2.0,True,lifelong run --epochs 5 --seed 1 --method ewc",
        "digits,ewc,0,0.9,0.0,20000,0,3.0,True,lifelong run --epochs 9 --seed 0 --method ewc",
        "digits,ewc,2,0.1,0.0,20000,0,3.0,False,lifelong run --epochs 5 --seed 2 --method ewc",
        "digits,mas,2,0.1,0.0,20000,0,3.0,True,lifelong run --epochs 5 --seed 2 --method mas",
    )
    lines = hook("method_pages").measured("ewc", [table]).splitlines()
    assert lines[2] == "| 1 | 0, 1 | 0.600 ± 0.141 | -0.200 ± 0.141 | 20.0 k |  | 1.5 ± 0.7 |"
    assert lines[3] == "| 2 | 0 | 0.900 | 0.000 | 20.0 k |  | 3.0 |"
    assert lines[-2:] == [
        "1. `digits`: `lifelong run --epochs 5 --seed 0 --method ewc` (small.csv)",
        "2. `digits`: `lifelong run --epochs 9 --seed 0 --method ewc` (small.csv)",
    ]


def test_a_method_without_results_says_so(tmp_path: Path) -> None:
    other = tmp_path / "speed.csv"
    other.write_text("name,ratio\ndistances,20\n")
    assert hook("method_pages").measured("ewc", [other, write(tmp_path / "empty.csv")]).startswith("Nothing has been measured")


def test_settings_come_from_the_code() -> None:
    rows = hook("method_pages").settings_table("mas").splitlines()
    about = "lambda: weight of the quadratic penalty; its scale depends on `importance`"
    assert f"| `--penalty-weight` | a number >= 0 | `1.0` | {about} |" in rows


def test_the_page_of_par_has_the_presets_of_the_code() -> None:
    """Rewritten by `python docs/hooks/preset_table.py`."""
    made = hook("preset_table")
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.filled(page) == page
    for values in PRESETS["authors-code"].values():
        assert all(f"| `{key}` |" in page for key in values if key != "tiny_task_ratio")  # which is the default's
    rows = [row.split(" | ") for row in made.for_all().splitlines()[2:]]
    assert all(row[2] != row[3] for row in rows)
    defaults = configure("digits", "par", preset="authors-code").settings
    agreed = {"feature_split": "valid", "feature_input": "task", "leave_one_out": False, "kd_weight": 1.0, "temperature": 2.0}
    for key, value in (agreed | {"train_old_heads": False, "search_sampling": "epoch"}).items():
        assert f"`{key}`" in page or f"`{key} " in page or f"(`{key}" in page
        assert getattr(defaults, key) == value == settings_of(PARSettings)[key].default


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for folder in ("docs/methods", "results"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "docs" / "methods" / "a.md").write_text(
        "[r](../../results/README.md#x) [b](../b.md) [gone](../../no.md) [w](https://x.y/z.md)"
    )
    (tmp_path / "docs" / "b.md").write_text("no link")
    (tmp_path / "results" / "README.md").write_text("[back](../docs/b.md) [rows](rows.csv)")
    (tmp_path / "results" / "rows.csv").write_text("x")
    return tmp_path


def test_what_is_linked_outside_is_found_and_led_to(repository: Path) -> None:
    links = hook("repository")
    assert links.outside(repository, ["docs/methods/a.md", "docs/b.md"]) == ["results/README.md", "results/rows.csv"]
    known = {"methods/a.md", "b.md", "repository/results/README.md", "repository/results/rows.csv"}
    page = links.led((repository / "docs/methods/a.md").read_text(), "methods/a.md", known)
    assert page == "[r](../repository/results/README.md#x) [b](../b.md) [gone](../../no.md) [w](https://x.y/z.md)"
    taken = links.led((repository / "results/README.md").read_text(), "repository/results/README.md", known)
    assert taken == "[back](../../b.md) [rows](rows.csv)"
