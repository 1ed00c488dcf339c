"""The candidate paths of a new task: how much of an earlier task's path is reused, and where new modules begin. Data only.

A path names a module for each position of a chain. With one earlier path as the source, a new task may follow it up to some point and then
leave it: L modules give L + 1 paths, from all new to all reused.

Source: Veniat et al., MNTDP (ICLR 2021), with one source path and connections that only lead forward.
"""

from dataclasses import dataclass

from lifelong.networks.library import ModulePath


@dataclass(frozen=True)
class Candidate:
    """A candidate path.

    Attributes:
        reused: the modules it shares with the source path, which are its first.
        fresh: the positions after them, where it has modules of its own.
    """

    reused: ModulePath
    fresh: range


def candidate_paths(positions: int, source: ModulePath | None, *, head_fits: bool = True) -> list[Candidate]:
    """List every path along a source: the one at index k leaves it after k modules.

    Args:
        positions: the length L of a path; the head is its last module.
        source: the path to follow; None: the only path is all new.
        head_fits: whether the source's head has as many classes as the new task; if not, it cannot be reused.
    """
    if source is None:
        return [Candidate((), range(positions))]
    longest = positions if head_fits else positions - 1
    return [Candidate(source[:reused], range(reused, positions)) for reused in range(longest + 1)]
