"""The tables of `docs/methods/par.md` about the preset `authors-code`, made of the presets themselves.

`python docs/hooks/preset_table.py` writes them into the page; a test sees that they are those of the code.
"""

from pathlib import Path
from typing import Any

from lifelong.settings.fields import settings_of, show_default
from lifelong.settings.presets import PRESETS, STREAM_PRESETS, preset_values
from lifelong.settings.training import TrainingSettings

PAGE = Path(__file__).resolve().parents[1] / "methods" / "par.md"
BEGIN, END = "<!-- made by docs/hooks/preset_table.py: begin -->", "<!-- made by docs/hooks/preset_table.py: end -->"

NAMES = {
    "PARSettings": "PAR",
    "SearchSettings": "PAR",
    "TrainingSettings": "all",
    "BackboneSettings": "one network",
    "GrowingSettings": "growing networks",
    "IndependentSettings": "Independent",
    "EWCSettings": "EWC",
    "MASSettings": "MAS",
    "LwFSettings": "LwF",
    "PNNSettings": "PNN",
    "LearnToGrowSettings": "Learn to Grow",
}
"""Whom the rows of a settings class concern."""


def tables() -> str:
    """Return what stands between the marks: the rows for all streams, then those for some."""
    streams = STREAM_PRESETS["authors-code"]
    return "\n\n".join([for_all(), "On some streams, in addition to `paper`:", for_some(streams)])


def for_all() -> str:
    """Return the settings that differ from their defaults on every stream, with what they do."""
    rows = [
        [NAMES[cls.__name__], f"`{key}`", _shown(_default(cls, key)), _shown(value), settings_of(cls)[key].help]
        for cls, values in PRESETS["authors-code"].items()
        for key, value in values.items()
        if value != _default(cls, key)
    ]
    return _table(["methods", "setting", "default", "`authors-code`", "what it does"], rows)


def for_some(streams: dict[str, Any]) -> str:
    """Return what is set on some streams and is neither the default nor what `paper` sets there."""
    rows = []
    for stream, layer in streams.items():
        for cls, values in layer.items():
            usual = {**preset_values("paper", stream, TrainingSettings, cls), **preset_values("paper", stream, cls)}
            differing = {key: value for key, value in values.items() if value != usual.get(key, _default(cls, key))}
            if differing:
                rows.append(
                    [f"`{stream}`", NAMES[cls.__name__], ", ".join(f"`{key}` {show_default(value)}" for key, value in differing.items())]
                )
    return _table(["stream", "methods", "`authors-code`"], rows)


def _default(cls: type[Any], key: str) -> Any:
    return {**settings_of(TrainingSettings), **settings_of(cls)}[key].default


def _shown(value: Any) -> str:
    return f"`{show_default(value)}`"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def filled(page: str) -> str:
    """Return the page with the tables of the code between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
