"""The form of each method's saved state: which parts it has, of what types and shapes.

Third-party methods have no form here: what their loading refuses is still reported in one line.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from lifelong.storage import Tree

Weights = dict[str, Tensor]
Count = Annotated[int, Ge(0)]
# Of images scaled to [0, 1], with room for other statistics that a user's program may use.
Mean = Annotated[float, Ge(-300), Le(300)]
Deviation = Annotated[float, Gt(0), Le(300)]


class _Normalization(TypedDict):
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]


class _Task(TypedDict):
    name: str
    classes: Annotated[int, Ge(1)]
    normalization: _Normalization


class _State(TypedDict):
    tasks: list[_Task]


class _Single(_State):
    image_size: NotRequired[Annotated[int, Ge(1)]]
    backbone: Weights | None
    heads: list[Weights]


class _CAT(_Single):
    similar: list[list[Count]]
    attends: list[bool]


class _GPM(_Single):
    bases: dict[str, Float[Tensor, "d k"]]


class _Scored(_Single):
    scores: dict[str, Tensor]


class _Quadratic(TypedDict):
    importance: Float[Tensor, "p"]
    anchor: Float[Tensor, "p"]


class _Penalty(_Single):
    quadratic: _Quadratic | None


class _Augmentation(TypedDict):
    crop: Count
    flip: bool
    brightness: Annotated[float, Ge(0), Le(1)]


class _Kept(TypedDict):
    images: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, "n"]
    normalization: _Normalization
    augmentation: _Augmentation


class _Replay(_Single):
    store: list[_Kept]
    seen: Count


class _Joint(_Single):
    train: list[_Kept]
    valid: list[_Kept]


class _Independent(_State):
    image_sizes: NotRequired[list[Annotated[int, Ge(1)]]]
    backbones: list[Weights]
    heads: list[Weights]


class _Door(TypedDict):
    autoencoder: Weights
    normalization: _Normalization


class _ExpertGate(_State):
    experts: list[Weights]
    heads: list[Weights]
    gate: list[_Door]


class _LearnToGrow(_State):
    paths: list[list[tuple[Literal["reuse", "adapt", "new"], Annotated[int, Ge(-1)]]]]
    networks: list[Weights]
    heads: list[Weights]


class _LMC(_State):
    library: list[list[Weights]]
    heads: list[Weights]


class _MNTDP(_LMC):
    paths: list[tuple[Count, ...]]


class _SGF(_LMC):
    widths: list[tuple[Annotated[int, Ge(1)], ...]]
    gates: list[Weights]


class _PNN(_State):
    columns: list[Weights]


class _Groups(TypedDict):
    members: list[list[Count]]
    largest: list[Count]


class _Prototypes(TypedDict):
    means: Float[Tensor, "c d"]
    counts: Int64[Tensor, "c"]


class _Spread(TypedDict):
    mean: Annotated[float, Ge(0)]
    variance: Annotated[float, Ge(0)]
    limit: float
    normalization: _Normalization


class _Relatedness(TypedDict):
    groups: _Groups
    bank: list[_Prototypes]
    recognition: list[_Spread]
    # A third party's measure may keep anything.
    kept: NotRequired[list[Any]]


class _PAR(_State):
    genotypes: list[str]
    experts: list[Weights]
    heads: list[Weights]
    # A third party's regularizer and decision rule may keep anything.
    kept: NotRequired[list[Any]]
    kept_by_rule: NotRequired[Any]
    relatedness: _Relatedness


class _Pretrained(_State):
    extractor: str
    network: Weights | None
    heads: list[Weights]
    bank: list[_Prototypes]
    recognition: list[_Spread]


class _RanPAC(_Pretrained):
    seed: Count
    scales: list[Annotated[float, Gt(0)]]
    gram: NotRequired[Float64[Tensor, "m m"]]
    moments: NotRequired[list[Float64[Tensor, "m c"]]]


class _FeCAM(_Pretrained):
    power: Annotated[float, Gt(0), Le(1)]
    whitening: NotRequired[Float[Tensor, "1 d d"]]
    scatter: NotRequired[Float64[Tensor, "d d"]]
    degrees: NotRequired[Count]


class _Mixture(TypedDict):
    own: Annotated[float, Ge(0), Le(1)]
    related: Annotated[float, Ge(0), Le(1)]
    adapted: Annotated[float, Ge(0), Le(1)]
    side: NotRequired[Annotated[float, Ge(0), Le(1)]]


class _Classifiers(TypedDict):
    own: Weights
    related: Weights | None
    earlier: list[Count]
    adapted: Weights | None
    side: NotRequired[Weights]
    mixture: _Mixture


class _PretrainedPAR(_State):
    extractor: str
    network: Weights | None
    seed: Count
    learned: list[_Classifiers]
    relatedness: _Relatedness


FORMS: dict[str, type] = {
    "agem": _Replay,
    "cat": _CAT,
    "er": _Replay,
    "ewc": _Penalty,
    "expert-gate": _ExpertGate,
    "fecam": _FeCAM,
    "finetune": _Single,
    "gpm": _GPM,
    "hat": _Single,
    "independent": _Independent,
    "joint": _Joint,
    "learn-to-grow": _LearnToGrow,
    "linear-probe": _Pretrained,
    "lmc": _LMC,
    "lwf": _Single,
    "mas": _Penalty,
    "mntdp-d": _MNTDP,
    "mntdp-s": _MNTDP,
    "ncm": _Pretrained,
    "packnet": _Single,
    "par": _PAR,
    "pnn": _PNN,
    "ranpac": _RanPAC,
    "sg-f": _SGF,
    "supsup": _Scored,
    "wsn": _Scored,
}
"""Forms by method name."""


def form_of_state(name: str, state: Tree) -> type:
    """Return the form that a state of a built-in method must have: PAR's depends on the kind of its experts."""
    pretrained = name == "par" and isinstance(state, dict) and "learned" in state
    return _PretrainedPAR if pretrained else FORMS[name]
