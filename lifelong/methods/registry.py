"""The registry of methods by name, with their settings; a method's code is imported only when one is created."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lifelong.errors import LifelongError
from lifelong.plugins import load_installed
from lifelong.settings.arguments import checked
from lifelong.settings.baselines import (
    AGEMSettings,
    CATSettings,
    ERSettings,
    EWCSettings,
    FinetuneSettings,
    GPMSettings,
    HATSettings,
    IndependentSettings,
    JointSettings,
    LwFSettings,
    MASSettings,
)
from lifelong.settings.defaults import SETTINGS
from lifelong.settings.fields import check, settings_of
from lifelong.settings.growing import (
    ExpertGateSettings,
    LearnToGrowSettings,
    LMCSettings,
    MNTDPSettings,
    MNTDPSSettings,
    PNNSettings,
    SGFSettings,
)
from lifelong.settings.masks import PackNetSettings, SupSupSettings, WSNSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.pretrained import FeCAMSettings, LinearProbeSettings, NCMSettings, RanPACSettings
from lifelong.settings.resolve import RUN_KEYS, unknown_method
from lifelong.settings.training import TrainingSettings
from lifelong.settings.tuning import TUNING_KEYS

if TYPE_CHECKING:
    from lifelong.methods.method import Method


@dataclass(frozen=True)
class MethodEntry:
    """A registered method.

    Attributes:
        name: its name on the command line.
        target: "module:class" of its implementation.
        settings: the dataclass of its hyper-parameters.
        summary: one line of what it does.
        source: its paper.
    """

    name: str
    target: str
    settings: type[Any]  # each method's own dataclass
    summary: str
    source: str


METHODS: dict[str, MethodEntry] = {}

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
"""The form of a method's name."""


def register(entry: MethodEntry) -> None:
    """Register a method, including a third party's, by its name.

    Raises:
        ValueError: the name is taken.
    """
    if entry.name in METHODS:
        raise ValueError(f"a method named '{entry.name}' is registered already")
    METHODS[entry.name] = entry
    SETTINGS[entry.name] = entry.settings


# `object`, not `type[Method]`: a wrong class gets a message of its own.
@checked
def register_method(method: object, settings: object, *, summary: str = "", source: str = "") -> None:
    """Register your own method under its `name`, for `run`, `compare`, `tune` and, in the same process, the command line.

    Args:
        method: a subclass of `Method`, at the top level of its module.
        settings: the dataclass of its hyper-parameters, each field made by `lifelong.settings.base.setting`.
        summary: one line of what it does.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid; the class is not a complete method, or not at the top level of its module; the settings
            are not such a dataclass.
    """
    method = _method_class(method)
    where = f"{method.__module__}:{method.__qualname__}"
    settings = _settings_class(where, settings)
    if "." in method.__qualname__:
        raise LifelongError(f"{where}: a method is found by its module and name; define the class at the top level of the module")
    if method.name in METHODS:
        raise LifelongError(f"{where}: a method named '{method.name}' is registered already; give it another `name`")
    register(MethodEntry(method.name, where, settings, summary, source))


def _method_class(method: object) -> "type[Method]":
    """Check the class of a method."""
    from lifelong.methods.method import Method

    if not isinstance(method, type) or not issubclass(method, Method):
        raise LifelongError(f"register_method: {method!r} is not a method; give the class itself, a subclass of lifelong.Method")
    where = f"{method.__module__}:{method.__qualname__}"
    name = getattr(method, "name", None)
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise LifelongError(f"{where}: name = {name!r} must be letters, digits, '-' and '_', such as 'my-method'")
    if method.__abstractmethods__:
        raise LifelongError(f"{where}: lacks {', '.join(sorted(method.__abstractmethods__))}, which every method has")
    return method


def _settings_class(where: str, settings: object) -> type[Any]:
    """Check the dataclass of a method's settings."""
    if not isinstance(settings, type) or not dataclasses.is_dataclass(settings):
        raise LifelongError(f"{where}: its settings are {settings!r}; give the dataclass itself, each field made by setting(default, text)")
    reserved = {*settings_of(TrainingSettings), *RUN_KEYS, *TUNING_KEYS}
    for name, item in settings_of(settings).items():
        if item.default is dataclasses.MISSING:
            raise LifelongError(f"{where}: its setting '{name}' has no default; make it by setting(default, text)")
        if name in reserved:
            raise LifelongError(f"{where}: its setting '{name}' is one of every run; give it another name")
        try:
            check(item.hint, item.default)
        except ValueError as error:
            raise LifelongError(f"{where}: its setting '{name}' has the default {item.default!r}: {error}") from None
    return settings


def known_methods() -> dict[str, MethodEntry]:
    """Return all methods by name, including those of installed packages (`lifelong.plugins`)."""
    load_installed()
    return METHODS


def method_entry(name: str) -> MethodEntry:
    """Return the entry of a method.

    Raises:
        LifelongError: no method has this name.
    """
    if name not in known_methods():
        raise LifelongError(unknown_method(name, METHODS))
    return METHODS[name]


@checked
def make_method(name: str, settings: object = None) -> "Method":
    """Create a fresh method.

    Args:
        name: a registered name.
        settings: an instance of the entry's settings; None: the defaults.

    Raises:
        LifelongError: no method has this name, or the settings are those of another.
    """
    entry = method_entry(name)
    if settings is not None and not isinstance(settings, entry.settings):
        raise LifelongError(f"make_method: the settings of '{name}' are a {entry.settings.__name__}, not {settings!r}")
    module, _, attribute = entry.target.partition(":")
    return getattr(importlib.import_module(module), attribute)(settings if settings is not None else entry.settings())


def _built_in() -> Iterator[MethodEntry]:
    yield MethodEntry(
        "par",
        "lifelong.methods.par_pretrained:make_par",
        PARSettings,
        "share an expert by distillation, reuse its cell, or search a new one, by the task's distance to what was learned",
        "Wang et al., CVPR 2023, arXiv 2304.05288",
    )
    yield MethodEntry(
        "finetune",
        "lifelong.methods.finetune:Finetune",
        FinetuneSettings,
        "one network trained on task after task, a head each, nothing protected (lower bound)",
        "folklore; PAR Table 1 and 3",
    )
    yield MethodEntry(
        "independent",
        "lifelong.methods.independent:Independent",
        IndependentSettings,
        "a network of its own for every task: nothing is shared, nothing is forgotten",
        "folklore; PAR Table 1 and 3",
    )
    yield MethodEntry(
        "lwf",
        "lifelong.methods.lwf:LwF",
        LwFSettings,
        "one network; the old heads' outputs on the new images are kept by distillation",
        "Li & Hoiem, TPAMI 2017, arXiv 1606.09282",
    )
    yield MethodEntry(
        "joint",
        "lifelong.methods.joint:Joint",
        JointSettings,
        "one network, retrained at every task on all images of all tasks so far (upper bound)",
        "folklore; van de Ven et al., Nature Machine Intelligence 2022",
    )
    yield MethodEntry(
        "ewc",
        "lifelong.methods.ewc:EWC",
        EWCSettings,
        "one network; a quadratic penalty holds weights where the Fisher information of earlier tasks is large",
        "Kirkpatrick et al., PNAS 2017, arXiv 1612.00796",
    )
    yield MethodEntry(
        "mas",
        "lifelong.methods.mas:MAS",
        MASSettings,
        "one network; a quadratic penalty holds weights that the outputs of earlier tasks depend on",
        "Aljundi et al., ECCV 2018, arXiv 1711.09601",
    )
    yield MethodEntry(
        "er",
        "lifelong.methods.er:ER",
        ERSettings,
        "one network; images kept of earlier tasks are trained along with the new ones",
        "Chaudhry et al., 2019, arXiv 1902.10486",
    )
    yield MethodEntry(
        "agem",
        "lifelong.methods.agem:AGEM",
        AGEMSettings,
        "one network; no step goes against the gradient of images kept of earlier tasks",
        "Chaudhry et al., ICLR 2019, arXiv 1812.00420",
    )
    yield MethodEntry(
        "gpm",
        "lifelong.methods.gpm:GPM",
        GPMSettings,
        "one network; weights move orthogonally to the directions of earlier tasks' layer inputs",
        "Saha et al., ICLR 2021, arXiv 2103.09762",
    )
    yield MethodEntry(
        "hat",
        "lifelong.methods.hat:HAT",
        HATSettings,
        "one network; each task gates its units, and weights between units that earlier tasks use stay as they are",
        "Serrà et al., ICML 2018, arXiv 1801.01423",
    )
    yield MethodEntry(
        "cat",
        "lifelong.methods.cat:CAT",
        CATSettings,
        "HAT, but units of similar tasks may be changed, and a second head attends to what similar tasks make of the images",
        "Ke et al., NeurIPS 2020, arXiv 2112.10017",
    )
    yield MethodEntry(
        "packnet",
        "lifelong.methods.packnet:PackNet",
        PackNetSettings,
        "one network; each task trains the weights that are still free, prunes most of them, and keeps the rest",
        "Mallya & Lazebnik, CVPR 2018, arXiv 1711.05769",
    )
    yield MethodEntry(
        "wsn",
        "lifelong.methods.wsn:WSN",
        WSNSettings,
        "one network; each task selects a part of its weights by scores, and trains those of them that no earlier task uses",
        "Kang et al., ICML 2022",
    )
    yield MethodEntry(
        "supsup",
        "lifelong.methods.supsup:SupSup",
        SupSupSettings,
        "one network of random weights that are never trained; each task selects a part of them by scores",
        "Wortsman et al., NeurIPS 2020, arXiv 2006.14769",
    )
    yield MethodEntry(
        "pnn",
        "lifelong.methods.pnn:PNN",
        PNNSettings,
        "a network of its own for every task, which also reads the frozen networks of all earlier tasks",
        "Rusu et al., 2016, arXiv 1606.04671",
    )
    yield MethodEntry(
        "expert-gate",
        "lifelong.methods.expertgate:ExpertGate",
        ExpertGateSettings,
        "a network for every task that starts as the most related one; auto-encoders tell relatedness, and the task of an image",
        "Aljundi et al., CVPR 2017, arXiv 1611.06194",
    )
    yield MethodEntry(
        "mntdp-d",
        "lifelong.methods.mntdp_d:MNTDPD",
        MNTDPSettings,
        "a path of modules per task: every way to leave the most similar earlier task's path is trained, the best is kept",
        "Veniat et al., ICLR 2021, arXiv 2012.12631",
    )
    yield MethodEntry(
        "mntdp-s",
        "lifelong.methods.mntdp_s:MNTDPS",
        MNTDPSSettings,
        "as mntdp-d, but where to leave the path is learned along with the weights, by REINFORCE",
        "Veniat et al., ICLR 2021, arXiv 2012.12631",
    )
    yield MethodEntry(
        "learn-to-grow",
        "lifelong.methods.learn_to_grow:LearnToGrow",
        LearnToGrowSettings,
        "for each convolution a task reuses an old one, adapts one or adds one; which of these is searched by gradients",
        "Li et al., ICML 2019, arXiv 1904.00310",
    )
    yield MethodEntry(
        "sg-f",
        "lifelong.methods.sgf:SGF",
        SGFSettings,
        "pools of frozen modules, mixed image by image by gates of the task; new modules are added from the top down where they help",
        "Mendez & Eaton, ICLR 2021, arXiv 2007.07732; Ostapenko et al., NeurIPS 2021",
    )
    yield MethodEntry(
        "lmc",
        "lifelong.methods.lmc:LMC",
        LMCSettings,
        "layers of modules, weighted by how well they reconstruct their input; a layer grows where none knows a new task",
        "Ostapenko et al., NeurIPS 2021, arXiv 2111.07736",
    )
    yield MethodEntry(
        "ncm",
        "lifelong.methods.ncm:NCM",
        NCMSettings,
        "on frozen pretrained features, the class with the nearest mean; nothing is trained",
        "Mensink et al., TPAMI 2013; Zhou et al., IJCV 2024, arXiv 2303.07338",
    )
    yield MethodEntry(
        "linear-probe",
        "lifelong.methods.linear_probe:LinearProbe",
        LinearProbeSettings,
        "on frozen pretrained features, a logistic regression per task",
        "Kornblith et al., CVPR 2019, arXiv 1805.08974",
    )
    yield MethodEntry(
        "ranpac",
        "lifelong.methods.ranpac:RanPAC",
        RanPACSettings,
        "on random projections of frozen pretrained features, a ridge regression in closed form",
        "McDonnell et al., NeurIPS 2023, arXiv 2307.02251",
    )
    yield MethodEntry(
        "fecam",
        "lifelong.methods.fecam:FeCAM",
        FeCAMSettings,
        "on frozen pretrained features, the class with the nearest mean by the Mahalanobis distance; nothing is trained",
        "Goswami et al., NeurIPS 2023, arXiv 2309.14062",
    )


for _entry in _built_in():
    register(_entry)
