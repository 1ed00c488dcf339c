"""Lifelong learning of image-classification tasks: each public name is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.api import compare, distances, estimate, estimate_learning, learn, open_stream, run, transfer, tune, verify
    from lifelong.data.task import Split, Stream, Task
    from lifelong.errors import LifelongError
    from lifelong.experiment.engine import Engine, check_engine, register_engine
    from lifelong.experiment.forgetting import Forgotten, forget
    from lifelong.experiment.job import RunJob, RunOutcome, perform, perform_plain
    from lifelong.experiment.observer import Observer
    from lifelong.experiment.observers import check_observer, register_observer
    from lifelong.experiment.verify import Verification
    from lifelong.experiment.versions import Certificate, Compacted, Version, compact, history, rollback
    from lifelong.exports import export, export_all
    from lifelong.learner import Learner
    from lifelong.methods.allocations import Allocation, check_allocation, register_allocation
    from lifelong.methods.backbone import check_backbone, register_backbone
    from lifelong.methods.conformance import check_method
    from lifelong.methods.decisions import DecisionRule, check_decision, register_decision
    from lifelong.methods.method import Method
    from lifelong.methods.registry import make_method, register_method
    from lifelong.methods.regularizers import Regularizer, check_regularizer, register_regularizer
    from lifelong.prediction import Prediction
    from lifelong.publishing import model_card, push
    from lifelong.relatedness.checking import check_measure
    from lifelong.relatedness.extractor import check_extractor, register_extractor
    from lifelong.relatedness.measures import Measure, register_measure
    from lifelong.report.gallery import check_figure, register_figure
    from lifelong.reporting import write_report
    from lifelong.settings.run import Environment
    from lifelong.sweeps.calls import plan_sweep, sweep, sweep_status

__version__ = "0.1.0"

_PUBLIC = {
    "Environment": "lifelong.settings.run",
    "run": "lifelong.api",
    "tune": "lifelong.api",
    "compare": "lifelong.api",
    "distances": "lifelong.api",
    "transfer": "lifelong.api",
    "estimate": "lifelong.api",
    "estimate_learning": "lifelong.api",
    "sweep": "lifelong.sweeps.calls",
    "plan_sweep": "lifelong.sweeps.calls",
    "sweep_status": "lifelong.sweeps.calls",
    "learn": "lifelong.api",
    "open_stream": "lifelong.api",
    "verify": "lifelong.api",
    "write_report": "lifelong.reporting",
    "Verification": "lifelong.experiment.verify",
    "history": "lifelong.experiment.versions",
    "rollback": "lifelong.experiment.versions",
    "compact": "lifelong.experiment.versions",
    "Version": "lifelong.experiment.versions",
    "Certificate": "lifelong.experiment.versions",
    "Compacted": "lifelong.experiment.versions",
    "forget": "lifelong.experiment.forgetting",
    "Forgotten": "lifelong.experiment.forgetting",
    "export": "lifelong.exports",
    "export_all": "lifelong.exports",
    "model_card": "lifelong.publishing",
    "push": "lifelong.publishing",
    "Learner": "lifelong.learner",
    "Prediction": "lifelong.prediction",
    "make_method": "lifelong.methods.registry",
    "register_method": "lifelong.methods.registry",
    "check_method": "lifelong.methods.conformance",
    "Method": "lifelong.methods.method",
    "Measure": "lifelong.relatedness.measures",
    "register_measure": "lifelong.relatedness.measures",
    "check_measure": "lifelong.relatedness.checking",
    "Regularizer": "lifelong.methods.regularizers",
    "register_regularizer": "lifelong.methods.regularizers",
    "check_regularizer": "lifelong.methods.regularizers",
    "Allocation": "lifelong.methods.allocations",
    "register_allocation": "lifelong.methods.allocations",
    "check_allocation": "lifelong.methods.allocations",
    "DecisionRule": "lifelong.methods.decisions",
    "register_decision": "lifelong.methods.decisions",
    "check_decision": "lifelong.methods.decisions",
    "register_backbone": "lifelong.methods.backbone",
    "check_backbone": "lifelong.methods.backbone",
    "Observer": "lifelong.experiment.observer",
    "register_observer": "lifelong.experiment.observers",
    "check_observer": "lifelong.experiment.observers",
    "Engine": "lifelong.experiment.engine",
    "register_engine": "lifelong.experiment.engine",
    "check_engine": "lifelong.experiment.engine",
    "RunJob": "lifelong.experiment.job",
    "RunOutcome": "lifelong.experiment.job",
    "perform": "lifelong.experiment.job",
    "perform_plain": "lifelong.experiment.job",
    "register_figure": "lifelong.report.gallery",
    "check_figure": "lifelong.report.gallery",
    "register_extractor": "lifelong.relatedness.extractor",
    "check_extractor": "lifelong.relatedness.extractor",
    "Split": "lifelong.data.task",
    "Stream": "lifelong.data.task",
    "Task": "lifelong.data.task",
    "LifelongError": "lifelong.errors",
}

__all__ = [
    "Allocation",
    "Certificate",
    "Compacted",
    "DecisionRule",
    "Engine",
    "Environment",
    "Forgotten",
    "Learner",
    "LifelongError",
    "Measure",
    "Method",
    "Observer",
    "Prediction",
    "Regularizer",
    "RunJob",
    "RunOutcome",
    "Split",
    "Stream",
    "Task",
    "Verification",
    "Version",
    "__version__",
    "check_allocation",
    "check_backbone",
    "check_decision",
    "check_engine",
    "check_extractor",
    "check_figure",
    "check_measure",
    "check_method",
    "check_observer",
    "check_regularizer",
    "compact",
    "compare",
    "distances",
    "estimate",
    "estimate_learning",
    "export",
    "export_all",
    "forget",
    "history",
    "learn",
    "make_method",
    "model_card",
    "open_stream",
    "perform",
    "perform_plain",
    "plan_sweep",
    "push",
    "register_allocation",
    "register_backbone",
    "register_decision",
    "register_engine",
    "register_extractor",
    "register_figure",
    "register_measure",
    "register_method",
    "register_observer",
    "register_regularizer",
    "rollback",
    "run",
    "sweep",
    "sweep_status",
    "transfer",
    "tune",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lifelong' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
