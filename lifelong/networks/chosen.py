"""The current task of a shared network, chosen by each thread for itself."""

import threading


class _OfThread(threading.local):
    """The choice of the current thread; a copy starts without a choice."""

    task: int | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> "_OfThread":
        return _OfThread()

    def __reduce__(self) -> tuple[type["_OfThread"], tuple[()]]:
        return _OfThread, ()


class ChosenTask:
    """A task, from 0, that a thread sets and reads without affecting others; a thread that has set none reads the last one set."""

    def __init__(self) -> None:
        self._here = _OfThread()
        self._last = 0

    def get(self) -> int:
        """Return the task of this thread."""
        here = self._here.task
        return self._last if here is None else here

    def set(self, task: int) -> None:
        """Choose a task for this thread, and for threads that choose none."""
        self._here.task = self._last = task


class ChoosesTask:
    """Adds `task` to a module that sets `_chosen`."""

    _chosen: ChosenTask

    @property
    def task(self) -> int:
        """The task whose part is applied in this thread, from 0."""
        return self._chosen.get()

    @task.setter
    def task(self, task: int) -> None:
        self._chosen.set(task)
