"""Runs side by side: those that differ in nothing but their seed belong together."""

import json
from dataclasses import dataclass
from typing import Any

from lifelong.report.wording import clean

NOT_A_SETTING = ("stream", "method", "seed", "preset")


@dataclass(frozen=True)
class Runs:
    """The runs of one method with one configuration.

    Attributes:
        label: the method, and what tells it from the others in the comparison.
        summaries: one for each seed.
    """

    label: str
    summaries: tuple[dict[str, Any], ...]

    @property
    def complete(self) -> bool:
        """Whether every run has learned its whole stream."""
        return all(summary.get("complete", True) for summary in self.summaries)

    def values(self, key: str) -> list[Any]:
        """One entry of every summary."""
        return [summary.get(key) for summary in self.summaries]

    def memory(self) -> list[int]:
        """Bytes kept besides parameters, all kinds together, of every run."""
        return [sum((summary.get("memory") or {}).values()) for summary in self.summaries]


def group(summaries: list[dict[str, Any]]) -> list[Runs]:
    """The runs by configuration, in order of first appearance.

    Args:
        summaries: of any streams, methods, presets and seeds.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        found.setdefault(json.dumps(_traits(summary), sort_keys=True, default=str), []).append(summary)
    groups = list(found.values())
    return [Runs(_label(members[0], [other[0] for other in groups]), tuple(members)) for members in groups]


def by_stream(summaries: list[dict[str, Any]]) -> dict[str, list[Runs]]:
    """The runs by configuration, stream by stream: numbers of different streams are not for comparing.

    Args:
        summaries: of any streams, methods, presets and seeds.

    Returns:
        By the stream's clean name, in order of first appearance.
    """
    streams = list(dict.fromkeys(summary["stream"] for summary in summaries))
    return {clean(stream): group([summary for summary in summaries if summary["stream"] == stream]) for stream in streams}


def _traits(summary: dict[str, Any]) -> dict[str, Any]:
    """Everything that tells configurations apart, but the seed."""
    settings = {key: value for key, value in (summary.get("settings") or {}).items() if key not in NOT_A_SETTING}
    return {**{key: summary.get(key) for key in ("method", "stream", "preset")}, **settings}


def _label(summary: dict[str, Any], everyone: list[dict[str, Any]]) -> str:
    """The method's name, with what differs between its configurations, and the stream where there are several."""
    own = _traits(summary)
    label = clean(own["method"])
    if len({other.get("stream") for other in everyone}) > 1:
        label += f" on {clean(own['stream'])}"
    alike = [_traits(other) for other in everyone if other.get("method") == summary.get("method")]
    # What one run chooses for each task and the other has given is told by the word "tuned".
    differing = [key for key in own if key not in ("method", "stream") and any(other.get(key, own[key]) != own[key] for other in alike)]
    words = [*(["tuned"] if "grid" in own else []), *(f"{key} {clean(own[key])}" for key in differing)]
    return f"{label} ({', '.join(words)})" if words else label
