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
    traits = _told_by_length([_traits(summary) for summary in summaries], summaries)
    found: dict[str, list[int]] = {}
    for position, own in enumerate(traits):
        found.setdefault(_key(own), []).append(position)
    everyone = [traits[positions[0]] for positions in found.values()]
    return [Runs(_label(traits[positions[0]], everyone), tuple(summaries[at] for at in positions)) for positions in found.values()]


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


def _told_by_length(traits: list[dict[str, Any]], summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The traits, with the number of tasks where finished runs that are otherwise alike differ in it: tasks were added to one."""
    lengths = [len(summary["tasks"]) if summary.get("complete", True) else None for summary in summaries]
    by_key: dict[str, set[int]] = {}
    for own, length in zip(traits, lengths, strict=True):
        by_key.setdefault(_key(own), set()).update(() if length is None else (length,))
    return [
        own if length is None or len(by_key[_key(own)]) < 2 else {**own, "tasks": length}
        for own, length in zip(traits, lengths, strict=True)
    ]


def _key(traits: dict[str, Any]) -> str:
    return json.dumps(traits, sort_keys=True, default=str)


def _label(own: dict[str, Any], everyone: list[dict[str, Any]]) -> str:
    """The method's name, with what differs between its configurations, and the stream where there are several."""
    label = clean(own["method"])
    if len({other["stream"] for other in everyone}) > 1:
        label += f" on {clean(own['stream'])}"
    alike = [other for other in everyone if other["method"] == own["method"]]
    # What one run chooses for each task and the other has given is told by the word "tuned".
    differing = [key for key in own if key not in ("method", "stream") and any(other.get(key, own[key]) != own[key] for other in alike)]
    words = [*(["tuned"] if "grid" in own else []), *(f"{key} {clean(own[key])}" for key in differing)]
    return f"{label} ({', '.join(words)})" if words else label
