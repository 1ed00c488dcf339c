"""Group runs for comparison: those that differ only in their seed belong together.

A run is identified by its summary: method, settings, and checksums of its images, never by the name of a stream or a folder.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lifelong.errors import LifelongError
from lifelong.records.base import plain
from lifelong.records.run import Content, RunRecord
from lifelong.report.wording import clean

T = TypeVar("T")

NOT_A_SETTING = ("stream", "method", "seed", "preset")

CIRCUMSTANCES = ("device", "precision", "machine", "threads", "torch", "version")
"""What distinguishes two runs of one seed, if nothing else does."""


@dataclass(frozen=True)
class Runs:
    """The runs of one method with one configuration.

    Attributes:
        label: the method, and what tells it from the others in the comparison.
        summaries: one for each seed.
    """

    label: str
    summaries: tuple[RunRecord, ...]

    @property
    def complete(self) -> bool:
        """Whether every run has learned its whole stream."""
        return all(summary.complete for summary in self.summaries)

    def values(self, of: Callable[[RunRecord], T]) -> list[T]:
        """Return a quantity of every summary."""
        return [of(summary) for summary in self.summaries]

    def memory(self) -> list[int]:
        """Bytes kept besides parameters, all kinds together, of every run."""
        return [sum((summary.memory or {}).values()) for summary in self.summaries]

    def trained(self) -> list[int | None]:
        """Parameters of every run without those of a frozen pretrained network; None where a run of an earlier version has no count."""
        return [
            None if (frozen := summary.get("parameters_frozen")) is None else summary["parameters"] - frozen for summary in self.summaries
        ]


def on_pretrained(runs: Sequence[Runs]) -> bool:
    """Tell whether any run answers by a frozen pretrained network, so that it matters what was trained."""
    return any(summary.get("parameters_frozen") for one in runs for summary in one.summaries)


def group(summaries: list[RunRecord]) -> list[Runs]:
    """Group runs by configuration, in order of first appearance; no group has a seed twice.

    Args:
        summaries: of any streams, methods, presets and seeds.
    """
    streams = stream_names(summaries)
    traits = [{**_traits(summary), "stream": stream} for summary, stream in zip(summaries, streams, strict=True)]
    traits = _told_by_length(traits, summaries)
    for trait in CIRCUMSTANCES:
        traits = _told_by(trait, traits, summaries)
    traits = _counted(traits, summaries)
    found: dict[str, list[int]] = {}
    for position, own in enumerate(traits):
        found.setdefault(_key(own), []).append(position)
    everyone = [traits[positions[0]] for positions in found.values()]
    return [Runs(_label(traits[positions[0]], everyone), tuple(summaries[at] for at in positions)) for positions in found.values()]


def by_stream(summaries: list[RunRecord]) -> dict[str, list[Runs]]:
    """Group runs by stream, then by configuration: numbers of different streams are not comparable.

    Args:
        summaries: of any streams, methods, presets and seeds.

    Returns:
        By the stream's clean name, with what tells it from others of this name, in order of first appearance.
    """
    names = stream_names(summaries)
    return {name: group([summary for summary, own in zip(summaries, names, strict=True) if own == name]) for name in dict.fromkeys(names)}


def stream_names(summaries: Sequence[RunRecord]) -> list[str]:
    """Name the stream of each summary: its clean name, and what distinguishes streams of one name with different images.

    Two runs learned one stream if it was made from the same definition and images (`SpecStream.content`). Runs of versions that did not
    record this learned the same, as far as one knows, unless two of one seed have other fingerprints: then each fingerprint is one stream.
    """
    members: list[list[int]] = []
    for position, summary in enumerate(summaries):
        place = next((known for known in members if _one_stream([summaries[at] for at in known], summary)), None)
        if place is None:
            members.append([position])
        else:
            place.append(position)
    named = [clean(summaries[known[0]]["stream"]) for known in members]
    result = [""] * len(summaries)
    for name, known in zip(named, members, strict=True):
        alike = [[summaries[at] for at in other] for title, other in zip(named, members, strict=True) if title == name]
        label = name if len(alike) == 1 else f"{name} ({_told_apart([summaries[at] for at in known], alike)})"
        for at in known:
            result[at] = label
    return result


def check_distinct(runs: Mapping[str, RunRecord]) -> None:
    """Check that no run is repeated: a copy is not a second seed.

    Args:
        runs: summaries by what their runs are called.

    Raises:
        LifelongError: two are the same.
    """
    seen: dict[str, str] = {}
    for name, summary in runs.items():
        parts = (summary.settings, summary.seed, summary.stream_fingerprint, summary.tasks, summary.accuracy)
        what = json.dumps([plain(part) for part in parts])
        other = seen.setdefault(what, name)
        if other != name:
            raise LifelongError(
                f"{other} and {name} are the same run ({clean(summary.method)}, seed {summary.seed}, with equal times): "
                "a copy is not a second seed; leave one out"
            )


def _one_stream(known: Sequence[RunRecord], summary: RunRecord) -> bool:
    """Tell whether a run learned the same stream as others."""
    if known[0].stream != summary.stream:
        return False
    mine, theirs = summary.stream_content, [other.stream_content for other in known if other.stream_content]
    if mine and theirs:
        return all(_same_content(mine, other) for other in theirs)
    if mine or theirs:
        return any(other.stream_fingerprint == summary.stream_fingerprint for other in known)
    return not any(_other_images(other, summary) for other in known)


def _same_content(one: Content, other: Content) -> bool:
    """Tell whether two streams have the same definition, and the same images from common sources."""
    return one.definition == other.definition and all(other.sources.get(name, what) == what for name, what in one.sources.items())


def _other_images(one: RunRecord, other: RunRecord) -> bool:
    """Tell whether two runs of one stream and seed learned different images, other than by adding tasks."""
    grown = one.complete and other.complete and len(one.tasks) != len(other.tasks)
    prints = {summary.stream_fingerprint for summary in (one, other) if summary.stream_fingerprint}
    return len(prints) > 1 and one.seed == other.seed and not grown


def _told_apart(own: Sequence[RunRecord], alike: Sequence[Sequence[RunRecord]]) -> str:
    """Return what distinguishes a stream from others of its name: its location, else the checksum of its images."""
    places = [(runs[0].settings or {}).get("stream") for runs in alike]
    place = (own[0].settings or {}).get("stream")
    if place and Counter(places)[place] == 1:
        return clean(place)
    return f"images {str(own[0].stream_fingerprint)[:8]}"


def _traits(summary: RunRecord) -> dict[str, Any]:
    """Everything that tells configurations apart, but the seed."""
    settings = {key: value for key, value in (summary.settings or {}).items() if key not in NOT_A_SETTING}
    learned = {
        "weights": summary.extractor_weights,
        "added": None if summary.stream_content is None else summary.stream_content.added,
    }
    return {"method": summary.method, "preset": summary.preset, **settings, **{key: what for key, what in learned.items() if what}}


def _told_by_length(traits: list[dict[str, Any]], summaries: list[RunRecord]) -> list[dict[str, Any]]:
    """Add the number of tasks to the traits if otherwise equal finished runs differ in it: tasks were added to one."""
    lengths = [len(summary.tasks) if summary.complete else None for summary in summaries]
    by_key: dict[str, set[int]] = {}
    bare = [{key: value for key, value in own.items() if key != "added"} for own in traits]
    for own, length in zip(bare, lengths, strict=True):
        by_key.setdefault(_key(own), set()).update(() if length is None else (length,))
    return [
        own if length is None or len(by_key[_key(key)]) < 2 else {**own, "tasks": length}
        for own, key, length in zip(traits, bare, lengths, strict=True)
    ]


def _told_by(trait: str, traits: list[dict[str, Any]], summaries: list[RunRecord]) -> list[dict[str, Any]]:
    """Add a trait where it distinguishes runs of one seed that are equal in all others."""
    values: dict[str, set[Any]] = {}
    for own, summary in zip(traits, summaries, strict=True):
        values.setdefault(_key({**own, "seed": summary.seed}), set()).add(getattr(summary, trait))
    torn = {_key(own) for own, summary in zip(traits, summaries, strict=True) if len(values[_key({**own, "seed": summary.seed})]) > 1}
    return [{**own, trait: getattr(summary, trait)} if _key(own) in torn else own for own, summary in zip(traits, summaries, strict=True)]


def _counted(traits: list[dict[str, Any]], summaries: list[RunRecord]) -> list[dict[str, Any]]:
    """Add a number to the traits where a seed is repeated and nothing distinguishes its runs."""
    seen: Counter[str] = Counter()
    result = []
    for own, summary in zip(traits, summaries, strict=True):
        key = _key({**own, "seed": summary.seed})
        seen[key] += 1
        result.append(own if seen[key] == 1 else {**own, "again": seen[key]})
    return result


def _key(traits: dict[str, Any]) -> str:
    return json.dumps(traits, sort_keys=True, default=str)


def _label(own: dict[str, Any], everyone: list[dict[str, Any]]) -> str:
    """Return the method's name, with what differs between its configurations, and the stream if there are several."""
    label = clean(own["method"])
    if len({other["stream"] for other in everyone}) > 1:
        label += f" on {clean(own['stream'])}"
    alike = [other for other in everyone if (other["method"], other["stream"]) == (own["method"], own["stream"])]
    words = [*(["tuned"] if "grid" in own else []), *(_said(key, own[key]) for key in own if _differs(key, own, alike))]
    return f"{label} ({', '.join(words)})" if words else label


def _differs(key: str, own: dict[str, Any], alike: list[dict[str, Any]]) -> bool:
    """Tell whether a trait distinguishes a configuration from others of its method."""
    if key in ("method", "stream"):
        return False
    if key == "added":
        # The number of tasks says it already, unless others have as many.
        alike = [other for other in alike if other.get("tasks") == own.get("tasks")]
    # A setting that another does not have is one that it tunes, which the word "tuned" says.
    absent = None if key in ("added", "weights", "again") else own[key]
    return any(other.get(key, absent) != own[key] for other in alike)


def _said(key: str, value: Any) -> str:
    """Describe a trait."""
    if key == "added":
        return f"added {' '.join(str(content)[:8] for content in value)}"
    return f"run {value}" if key == "again" else f"{key} {clean(value)}"
