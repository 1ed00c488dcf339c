"""Predict with an exported bundle, without PyTorch: ONNX Runtime, Pillow and NumPy are enough.

    from lifelong.runtime import Bundle

    for answer in Bundle("bundle").predict(["holiday.jpg"]):
        print(answer.task, answer.label, answer.probability, answer.strange)

On the command line: ``python -m lifelong.runtime BUNDLE IMAGE ...``. `lifelong export RUN --bundle DIR` writes bundles.
"""

from lifelong.prediction import Prediction
from lifelong.runtime.bundle import Bundle

__all__ = ["Bundle", "Prediction"]
