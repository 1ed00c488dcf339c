"""A figure of one's own in every report: what a task cost against what it is known by now.

lifelong run --stream digits --preset quick --plugin examples/new_figure.py
"""

from matplotlib.figure import Figure

import lifelong


def draw(summary):
    """Draw one point per task; nothing without tasks."""
    if not summary.accuracy:
        return None
    drawing = Figure(figsize=(5, 3))
    axes = drawing.add_subplot(xlabel="parameters added", ylabel="accuracy now")
    axes.scatter([task.parameters_added for task in summary.tasks], summary.accuracy[-1])
    return drawing


lifelong.register_figure("worth", draw, "accuracy of each task against the parameters that it added")
