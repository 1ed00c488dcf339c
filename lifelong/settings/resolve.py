"""Resolve presets, a configuration file and flags into the configuration of a run, and write it back to a file.

The order of precedence, lowest first: defaults, preset, configuration file, flags. The file is flat TOML: the keys of a run (stream,
method, seed, preset), any hyper-parameter, with underscores or dashes, and the keys of tuning (grid, tolerance, trials).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from annotated_types import Ge

from lifelong.errors import LifelongError, near_miss
from lifelong.opening import read_toml
from lifelong.settings.fields import Setting, as_lists, check, flag, settings_of, show
from lifelong.settings.presets import DEFAULT, preset_values
from lifelong.settings.run import EnvironmentOptions, Preset, RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import TUNING_KEYS, Range, TuningSettings, parts_of, values_of

RUN_KEYS: dict[str, Any] = {"stream": str, "method": str, "seed": Annotated[int, Ge(0)], "preset": Preset}
"""The keys of a run other than hyper-parameters, with their types."""


@dataclass(frozen=True)
class _Given:
    """A given value and its origin.

    Attributes:
        key: with underscores.
        value: as given.
        file: the configuration file, or None for a flag.
    """

    key: str
    value: Any
    file: Path | None

    def __str__(self) -> str:
        return f"{flag(self.key)} {show(self.value)}" if self.file is None else f"{self.file}: {self.key} = {show(self.value)}"

    def check(self, hint: Any) -> Any:
        """Check the value against its type."""
        try:
            return check(hint, self.value)
        except ValueError as error:
            raise LifelongError(f"{self}: {error}") from None


def resolve(
    stream: str | None,
    method: str | None,
    seed: int | None,
    preset: str | None,
    config_file: Path | None,
    overrides: Mapping[str, Any],
    *,
    methods: Mapping[str, type[Any]],
    compared: Iterable[str] = (),
    presets: bool = True,
) -> RunConfig:
    """Resolve the configuration of one run.

    Args:
        stream: a stream's name or the path of its TOML file; None: taken from the configuration file.
        method: a method's name; None: the configuration file's, else "par".
        seed: at least 0; None: the configuration file's, else 0.
        preset: a preset's name; None: the configuration file's, else "paper".
        config_file: flat TOML, or None.
        overrides: hyper-parameters by key, which override everything else.
        methods: every known method's settings class by the method's name.
        compared: names of methods run with the same flags: a key of one of them is ignored if it is not a setting of `method`,
            also in a grid.
        presets: whether settings that are not given come from the preset; otherwise they have their defaults.

    Raises:
        LifelongError: a key is unknown or belongs to another method, a value has the wrong type or is out of range, the file
            cannot be read, or no stream is given.
    """
    flags = {"stream": stream, "method": method, "seed": seed, "preset": preset, **overrides}
    given = _read(config_file) if config_file is not None else {}
    given |= {key: _Given(key, value, None) for key, value in flags.items() if value is not None}

    run = {key: given[key].check(hint) for key, hint in RUN_KEYS.items() if key in given}
    if not run.get("stream"):
        raise LifelongError("no stream given: name one with --stream, or with the key 'stream' in the file of --config")
    method = run.get("method", "par")
    if method not in methods:
        raise LifelongError(f"{_label(given, 'method')}{unknown_method(method, methods)}")
    settings = methods[method]
    known = settings_of(TrainingSettings) | settings_of(settings)
    _refuse_strangers(given, known, method, methods, compared)
    tuning = _tuning(given, known, method, methods, compared)
    # A tuned setting has no fixed value.
    given = {key: item for key, item in given.items() if tuning is None or key not in tuning.keys}
    values = {key: given[key].check(item.hint) for key, item in known.items() if key in given}

    def preset_of(cls: type[Any], method: type[Any] | None = None) -> dict[str, Any]:
        return preset_values(run.get("preset"), run["stream"], cls, method) if presets else {}

    config = RunConfig(
        stream=run["stream"],
        method=method,
        seed=run.get("seed", 0),
        preset=run.get("preset", DEFAULT),
        training=TrainingSettings(**(preset_of(TrainingSettings, settings) | _of(TrainingSettings, values))),
        settings=settings(**(preset_of(settings) | _of(settings, values))),
        tuning=tuning,
    )
    if tuning is None:
        _check_thresholds(config.settings, _label(given, "beta", "alpha"))
    else:
        _check_combinations(config, tuning, _label(given, "grid"))
    return config


def unknown_method(name: str, known: Iterable[str]) -> str:
    """Explain that a method is unknown: the nearest name, or how to load your own."""
    hint = near_miss(name, known)
    own = "" if "did you mean" in hint else " (if it is your own: --plugin FILE.py, import its module, or install its package)"
    return f"unknown method '{name}'{hint}{own}"


def flat(config: RunConfig) -> dict[str, Any]:
    """Return everything that determines a run's numbers as one flat dict of JSON and TOML types."""
    return {key: value for _, group in _groups(config) for key, value in group.items()}


def default_values(config: RunConfig) -> dict[str, Any]:
    """Return the default of every setting of a run's method and training, as JSON and TOML types.

    A run started before a setting existed behaved as with its default.
    """
    known = settings_of(TrainingSettings) | settings_of(type(config.settings))
    tuned = () if config.tuning is None else config.tuning.keys
    return {key: as_lists(item.default) for key, item in known.items() if key not in tuned}


def as_begun(config: RunConfig, stored: Mapping[str, Any]) -> RunConfig:
    """Give settings that did not exist when a run was started their defaults, whatever a preset sets now.

    Args:
        config: the configuration of a run started today. A value that no preset sets was asked for, and stays.
        stored: the settings that the run was started with, by key (see `flat`).
    """
    presets = [config.preset, *([None] if config.preset == DEFAULT else [])]
    classes = [(TrainingSettings, type(config.settings)), (type(config.settings), None)]
    by_preset = [preset_values(preset, config.stream, cls, method) for preset in presets for cls, method in classes]
    now = flat(config)
    unknown = {key: value for key, value in default_values(config).items() if key not in stored and now[key] != value}
    return config.with_values(
        {key: value for key, value in unknown.items() if any(now[key] == as_lists(given.get(key, value)) for given in by_preset)}
    )


def config_toml(config: RunConfig) -> str:
    """Write the configuration as TOML with a comment above each group; `resolve` reads it back to an equal configuration."""
    parts = [
        "\n".join([f"# {title}", *(f"{key} = {show(value)}" for key, value in group.items()), ""])
        for title, group in _groups(config)
        if group
    ]
    return "\n".join(parts)


def _groups(config: RunConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "The run; repeat it with: lifelong run --config THIS_FILE --out DIR", {key: getattr(config, key) for key in RUN_KEYS}
    tuned = () if config.tuning is None else config.tuning.keys
    yield "Training, the same for every method", _plain_values(config.training, tuned)
    yield f"Hyper-parameters of {config.method} (explained by: lifelong methods {config.method})", _plain_values(config.settings, tuned)
    yield "Tuned for each task on its validation images", {} if config.tuning is None else config.tuning.flat()


def _plain_values(settings: Any, tuned: Iterable[str]) -> dict[str, Any]:
    return {key: as_lists(value) for key, value in asdict(settings).items() if key not in tuned}


def _of(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that are settings of a class."""
    known = settings_of(cls)
    return {key: value for key, value in values.items() if key in known}


def _read(file: Path) -> dict[str, _Given]:
    """Read a configuration file."""
    try:
        content = read_toml(file)
    except OSError as error:
        raise LifelongError(f"cannot read the configuration {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise LifelongError(f"{file} is not valid TOML: {' '.join(str(error).split())}") from error
    given: dict[str, _Given] = {}
    for name, value in content.items():
        key = name.replace("-", "_")
        if isinstance(value, dict):
            raise LifelongError(f"{file}: [{name}] is a section; write all settings at the top level, without sections")
        if key in given:
            raise LifelongError(f"{file}: {key} is given twice, with a dash and with an underscore; keep one")
        given[key] = _Given(key, value, file)
    return given


def _refuse_strangers(
    given: Mapping[str, _Given],
    known: Mapping[str, Setting],
    method: str,
    methods: Mapping[str, type[Any]],
    compared: Iterable[str],
) -> None:
    """Raise for a key that is not a setting of the run, unless another compared method has it."""
    also = {key for name in compared for key in settings_of(methods[name])}
    for item in given.values():
        if item.key in RUN_KEYS or item.key in TUNING_KEYS or item.key in known or item.key in also:
            continue
        name = flag(item.key) if item.file is None else f"{item.file}: '{item.key}'"
        # The functions of Python take both hyper-parameters and options of the environment by keyword.
        options = EnvironmentOptions.__annotations__ if item.file is None else ()
        _refuse(name, item.key, [*RUN_KEYS, *TUNING_KEYS, *known, *also, *options], [method, *compared], methods)


def _refuse(name: str, key: str, known: Iterable[str], mine: Iterable[str], methods: Mapping[str, type[Any]]) -> NoReturn:
    owners = [other for other, settings in methods.items() if key in settings_of(settings)]
    if owners:
        raise LifelongError(f"{name} is a setting of {', '.join(owners)}, not of {', '.join(dict.fromkeys(mine))}")
    hint = near_miss(key, known)
    raise LifelongError(f"{name} is not a setting{hint if 'did you mean' in hint else '; see: lifelong methods'}")


def _tuning(
    given: Mapping[str, _Given],
    known: Mapping[str, Setting],
    method: str,
    methods: Mapping[str, type[Any]],
    compared: Iterable[str],
) -> TuningSettings | None:
    """Return what is tuned; None without a grid, or if its keys are settings of other compared methods only."""
    rest = {key: given[key].check(TUNING_KEYS[key]) for key in ("tolerance", "trials") if key in given}
    if "grid" not in given:
        for key in rest:
            raise LifelongError(f"{given[key]}: needs --grid, which lists the values to try")
        return None
    item = given["grid"]
    compared = list(compared)
    others = {key for name in compared for key in settings_of(methods[name])}
    grid = []
    try:
        for key, values in parts_of(item.value).items():
            if key in known:
                grid.append((key, values_of(known[key], values)))
            elif key not in others:
                _refuse(f"{item}: '{key}'", key, [*known, *others], [method, *compared], methods)
            if key in given and given[key].file is None:
                raise ValueError(f"{key} is given by {given[key]} too; keep one")
        tuning = TuningSettings(grid=tuple(grid), **rest)
        if tuning.trials and tuning.tolerance:
            raise ValueError("--tolerance cannot be combined with --trials, because Optuna decides the order of the candidates")
        ranges = [key for key, values in grid if isinstance(values, Range)]
        if ranges and not tuning.trials:
            raise ValueError(f"a range ({ranges[0]}) needs --trials N; or list its values, separated by commas")
    except ValueError as error:
        raise LifelongError(f"{item}: {error}") from None
    return tuning if grid else None


def _check_combinations(config: RunConfig, tuning: TuningSettings, label: str) -> None:
    """Check that all combinations of tuned values are valid."""
    if "weight_decay" in tuning.keys and config.training.weight_decay_grid:
        raise LifelongError(f"{label}weight_decay cannot be tuned together with --weight-decay-grid, which already chooses it; keep one")
    for values in tuning.combinations():
        _check_thresholds(config.with_values(values).settings, label)


def _check_thresholds(settings: Any, label: str) -> None:
    """Check that beta is not below alpha: a cell is reused at larger distances than an expert."""
    alpha, beta = getattr(settings, "alpha", None), getattr(settings, "beta", None)
    if alpha is not None and beta is not None and beta < alpha:
        raise LifelongError(f"{label}beta = {beta} is below alpha = {alpha}; it must be at least alpha")


def _label(given: Mapping[str, _Given], *keys: str) -> str:
    """Start an error message with the origin of the first of these keys that was given: its file or its flag."""
    for key in keys:
        if key in given:
            file = given[key].file
            return f"{flag(key) if file is None else file}: "
    return ""
