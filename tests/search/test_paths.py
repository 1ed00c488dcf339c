"""The paths along a source."""

import pytest

from lifelong.search.paths import candidate_paths

SOURCE = (3, 1, 0, 2, 0, 4)


def test_seven_paths_along_six_modules() -> None:
    paths = candidate_paths(6, SOURCE)
    assert len(paths) == 7
    assert (paths[0].reused, list(paths[0].fresh)) == ((), [0, 1, 2, 3, 4, 5])
    assert (paths[2].reused, list(paths[2].fresh)) == ((3, 1), [2, 3, 4, 5])
    assert (paths[6].reused, list(paths[6].fresh)) == (SOURCE, [])


def test_a_head_of_another_size_is_not_reused() -> None:
    paths = candidate_paths(6, SOURCE, head_fits=False)
    assert paths == candidate_paths(6, SOURCE)[:-1]
    assert list(paths[-1].fresh) == [5]


@pytest.mark.parametrize("positions", [1, 5])
def test_without_a_source_all_is_new(positions: int) -> None:
    (path,) = candidate_paths(positions, None)
    assert (path.reused, list(path.fresh)) == ((), list(range(positions)))
