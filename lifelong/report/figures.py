"""The figures of a report, each a function from results to a PNG."""

from lifelong.report.cell_diagram import cell_diagram
from lifelong.report.charts import accuracy_curve, compare_curves, compare_forgetting, compare_tasks, cost
from lifelong.report.curves import training_curves
from lifelong.report.groups import task_groups
from lifelong.report.matrices import accuracy_matrix, divergence_heatmap

__all__ = [
    "accuracy_curve",
    "accuracy_matrix",
    "cell_diagram",
    "compare_curves",
    "compare_forgetting",
    "compare_tasks",
    "cost",
    "divergence_heatmap",
    "task_groups",
    "training_curves",
]
