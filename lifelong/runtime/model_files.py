"""Open the ONNX files of a bundle: whole, by their digests, and without reading any other file.

ONNX lets a model keep its weights in other files, whose paths stand in the model. A bundle has no such weights; a model that names some is
refused before ONNX Runtime sees it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError
from lifelong.opening import read_bytes

MOST_BYTES = 2**31
"""Bytes of a model: what a protocol buffer can have."""

# What may hold tensors, from a model down, by field number: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(7)
_INSIDE = {
    "model": {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
}
_EXTERNAL = {13, 14}
"""Fields of a tensor: where else its data are, and whether they are elsewhere."""


def open_model(file: Path, sha256: str, threads: int) -> Any:
    """Open a model in ONNX Runtime.

    Args:
        file: of the model.
        sha256: of its content.
        threads: to compute on; 0: one per core.

    Raises:
        LifelongError: it is missing, not the file that was written, or not a model that can be run; or ONNX Runtime is missing.
    """
    content = read_model(file, sha256)
    try:
        import onnxruntime
    except ImportError as error:
        raise LifelongError("predicting with a bundle needs the package onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is said once, by the exception
    try:
        # Constants of one task out of a hundred would be computed for all (the masks of a shared network).
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"])
    except Exception as error:  # ONNX Runtime has exceptions of many kinds
        raise LifelongError(f"{file}: ONNX Runtime cannot open it ({first_line(error)}); update onnxruntime, or export again") from error


def read_model(file: Path, sha256: str) -> bytes:
    """Read a model, and check its digest and that it keeps no data elsewhere.

    Raises:
        LifelongError: as `open_model`.
    """
    try:
        content = read_bytes(file, MOST_BYTES)
    except OSError as error:
        raise LifelongError(f"{file}: {error.strerror}; copy the whole bundle again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise LifelongError(f"{file}: does not match the digest in the description, so it was changed or damaged; copy the bundle again")
    try:
        external = has_external_data(content)
    except (IndexError, ValueError) as error:
        raise LifelongError(f"{file}: not an ONNX model; export the bundle again") from error
    if external:
        raise LifelongError(f"{file}: keeps weights in other files, which no bundle does; do not use it")
    return content


def has_external_data(content: bytes) -> bool:
    """Tell whether a serialized model has a tensor whose data are in another file.

    Raises:
        ValueError, IndexError: it is not a protocol buffer.
    """
    waiting: list[tuple[Any, int, int]] = [("model", 0, len(content))]
    while waiting:
        kind, start, end = waiting.pop()
        for field, value_start, value_end in _fields(content, start, end):
            if kind == _TENSOR and field in _EXTERNAL and (field == 13 or content[value_start] != 0):
                return True
            inner = _INSIDE.get(kind, {}).get(field)
            if inner is not None:
                waiting.append((inner, value_start, value_end))
    return False


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each field of a message."""
    while start < end:
        tag, start = _number(content, start)
        field, wire = tag >> 3, tag & 7
        value_start = start
        if wire == 0:
            _, start = _number(content, start)
        elif wire == 1:
            start += 8
        elif wire == 2:
            length, value_start = _number(content, start)
            start = value_start + length
        elif wire == 5:
            start += 4
        else:
            raise ValueError("an unknown kind of field")
        if start > end:
            raise ValueError("a field that ends behind its message")
        yield field, value_start, start


def _number(content: bytes, start: int) -> tuple[int, int]:
    """Read a number of 7 bits per byte, and return it with the position behind it."""
    number, shift = 0, 0
    while True:
        byte = content[start]
        start += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, start
        shift += 7
        if shift > 63:
            raise ValueError("a number without an end")


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
