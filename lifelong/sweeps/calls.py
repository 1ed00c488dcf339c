"""The Python interface of sweeps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from lifelong.settings.arguments import Place, Workers, checked
from lifelong.settings.run import Environment, EnvironmentOptions, environment_of
from lifelong.starting import listening
from lifelong.sweeps.carrying import check_plan, start_sweep
from lifelong.sweeps.spec import Plan, plan

if TYPE_CHECKING:
    from lifelong.experiment.observer import Observer
    from lifelong.records.run import RunRecord
    from lifelong.sweeps.status import SweepStatus


@checked
def sweep(
    spec: Place | Mapping[str, Any],
    *,
    out: Place | None = None,
    environment: Environment | None = None,
    workers: Workers = 1,
    engine: str = "local",
    progress: "bool | Observer" = True,
    **options: Unpack[EnvironmentOptions],
) -> "list[RunRecord]":
    """Carry out all runs of a sweep, each in its own folder, and compare them; the same call continues an interrupted one.

    All runs are checked before the first one starts. Several processes may make the same call at once, on any machines that share the
    folder: each run is carried out once.

    Args:
        spec: TOML file, or its content as a dict: "streams", "methods", "seeds", "preset", "out", and the sections "settings", "method",
            "stream" and "vary". In a dict, a stream can also be an object, as `run` takes it.
        out: the folder of the sweep; by default as the specification says, else ``runs/<name of the file>``.
        workers: number of parallel runs. With engine "local", the call must stand under ``if __name__ == "__main__":`` for more than 1.
        engine: what carries out the runs: "local" (this machine), "ray", "ray:ADDRESS", "slurm", "slurm:FILE", or one added by
            `register_engine`.
        environment, progress, options: see `run`.

    Returns:
        The summaries of the runs, in the order of the specification.

    Raises:
        LifelongError: the specification is not valid or a run cannot start, and nothing was run; or runs have failed, and the others are
            finished.
    """
    place = environment_of("sweep", environment, options)
    planned = plan(spec, out)
    with listening(progress) as listener:
        return start_sweep(planned, place, listener, workers, engine)


@checked
def plan_sweep(
    spec: Place | Mapping[str, Any],
    *,
    out: Place | None = None,
    environment: Environment | None = None,
    engine: str = "local",
    **options: Unpack[EnvironmentOptions],
) -> Plan:
    """Resolve and check all runs of a sweep, as `sweep` does before it starts; nothing is written or trained.

    Args:
        spec, out, environment, engine, options: see `sweep`.

    Returns:
        `out`, the folder, and `runs`, each with its `name` and its `config`.

    Raises:
        LifelongError: the specification is not valid, or a run cannot start.
    """
    place = environment_of("plan_sweep", environment, options)
    planned = plan(spec, out)
    check_plan(planned, place, engine=engine)
    return planned


@checked
def sweep_status(spec: Place | Mapping[str, Any], *, out: Place | None = None) -> "SweepStatus":
    """Tell how far the runs of a sweep are, while it goes on or afterwards.

    Args:
        spec, out: see `sweep`.

    Returns:
        `counts`, the number of runs in each state, and `runs`, each with its `state`: "waiting", "running", "finished" or "failed".

    Raises:
        LifelongError: the specification is not valid, or something in the folder cannot be read.
    """
    planned = plan(spec, out)
    from lifelong.training.process import as_found

    with as_found():  # imports draw random numbers, too
        from lifelong.sweeps.status import status_of

        return status_of(planned)
