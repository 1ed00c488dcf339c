"""The runtime: it imports no PyTorch, runs as one file, and refuses bundles that are damaged or hostile."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lifelong.bundling.write import RUNTIME, RUNTIME_MODULES, write_description, write_runtime
from lifelong.errors import LifelongError
from lifelong.runtime import Bundle
from lifelong.runtime.__main__ import EMPTY, main
from lifelong.runtime.description import SHAPE, mismatch
from lifelong.runtime.model_files import has_external_data

HEAVY = ("torch", "jaxtyping", "pydantic", "pyarrow", "safetensors", "cyclopts", "matplotlib", "onnx")


def brightness_model(scale: float = 1.0) -> onnx.ModelProto:
    """A model by hand: the mean of a 4 x 4 image is the logit of "bright", and 127.5 that of "dark"."""
    nodes = [
        helper.make_node("Cast", ["images_4"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["bright"]),
        helper.make_node("Mul", ["bright", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "middle"], ["dark"]),
        helper.make_node("Concat", ["bright", "dark"], ["raw"], axis=1),
        helper.make_node("Mul", ["raw", "scale"], ["logits_001"]),
    ]
    constants = {
        "axes": np.array([1, 2, 3]),
        "one": np.array([1]),
        "zero": np.zeros((), np.float32),
        "middle": np.full((), 127.5, np.float32),
        "scale": np.full((), scale, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("images_4", TensorProto.UINT8, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("logits_001", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def made_bundle(folder: Path, model: onnx.ModelProto | bytes | None = None, **changes: Any) -> Path:
    """A bundle by hand, with changes to its description, which is signed again."""
    content = model if isinstance(model, bytes) else (model or brightness_model()).SerializeToString()
    folder.mkdir(exist_ok=True)
    (folder / "model-001.onnx").write_bytes(content)
    task = {"name": "light", "classes": ["bright", "dark"], "image_size": 4, "model": 0, "output": "logits_001", "limit": None}
    about = {
        "format": 1,
        "lifelong": "0",
        "run": {"digest": "", "method": "by hand"},
        "together": False,
        "models": [{"sha256": hashlib.sha256(content).hexdigest(), "inputs": ["images_4"], "gives": []}],
        "recognizes": [],
        "strange_above": 1.0,
        "tasks": [task | {"normalization": {"mean": [0.0] * 3, "std": [1.0] * 3}}],
    }
    write_description(folder, about | changes)
    return folder


def grey(value: int, size: int = 4) -> np.ndarray:
    return np.full((size, size), value, np.uint8)


def test_it_answers_by_a_model(tmp_path):
    bundle = Bundle(made_bundle(tmp_path / "b", brightness_model(scale=0.01)))
    light, dim = bundle.predict([grey(200), grey(100, 9)])
    assert (light.task, light.label, dim.label) == ("light", "bright", "dark")
    wanted = 1 / (1 + np.exp(0.01 * (127.5 - 200)))
    assert light.classes == pytest.approx({"bright": wanted, "dark": 1 - wanted})
    assert light.tasks == {"light": 1.0}
    assert light.strange is None


def test_importing_it_imports_nothing_heavy():
    code = f"import sys; import lifelong.runtime; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_file_runs_without_the_library(tmp_path):
    """No path leads to the library but the file, and PyTorch cannot be imported."""
    bundle = made_bundle(tmp_path / "b")
    write_runtime(bundle)
    Image.fromarray(grey(250)).save(tmp_path / "light.png")
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "blocked")}
    command = [sys.executable, str(bundle / RUNTIME), str(bundle), str(tmp_path / "light.png")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'light.png'}: light: bright (1.000)\n"


def test_the_one_file_has_what_the_runtime_imports(tmp_path):
    """Whatever `lifelong.runtime` imports of the library, and no more; equal code gives equal bytes."""
    code = (
        "import sys; import lifelong.runtime.__main__; import lifelong;"
        "print(sorted(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'lifelong' and m.__file__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    root = Path(__file__).resolve().parents[2]
    assert sorted(str(Path(file).resolve().relative_to(root)) for file in eval(done.stdout)) == sorted(RUNTIME_MODULES)
    write_runtime(tmp_path)
    first = (tmp_path / RUNTIME).read_bytes()
    write_runtime(tmp_path)
    assert (tmp_path / RUNTIME).read_bytes() == first
    assert {entry.filename for entry in zipfile.ZipFile(tmp_path / RUNTIME).infolist()} == {"__main__.py", *RUNTIME_MODULES}


def test_the_command(tmp_path, capsys):
    bundle = made_bundle(tmp_path / "b")
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(grey(20)).save(folder / "night.png")
    (folder / "broken.png").write_bytes(b"no image")
    assert main([str(bundle), str(folder), "--json"]) == 0
    broken, night = json.loads(capsys.readouterr().out)
    assert (night["label"], night["error"], broken["error"]) == ("dark", None, "no image, or of an unknown format")
    assert main([str(bundle), str(folder / "broken.png")]) == 2
    assert main([str(bundle), str(folder), "--task", "lihgt"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lifelong: 1 of 1 images cannot be used")
    assert "did you mean 'light'?" in error


def test_the_command_is_as_that_of_the_library(tmp_path, capsys):
    """Rows, exit codes and lines of `lifelong predict`."""
    bundle = made_bundle(tmp_path / "b")
    broken, night = tmp_path / "broken.png", tmp_path / "night.png"
    broken.write_bytes(b"no image")
    Image.fromarray(grey(20)).save(night)
    assert main([str(bundle), str(broken), str(night), "--json", "--skip-broken"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert list(first) == list(second) == ["image", *EMPTY, "error"]
    assert [first[key] for key in EMPTY] == [None] * len(EMPTY)
    assert main([str(bundle), str(broken), "--json", "--skip-broken"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"lifelong: 1 of 1 images cannot be used: {broken} (no image, or of an unknown format); none is left\n"
    assert main([str(bundle), str(broken), str(night)]) == 2
    assert "leave them out, or give --skip-broken" in capsys.readouterr().err
    assert main([str(bundle), str(night), "--threads", "-3"]) == 2
    assert "threads = -3" in capsys.readouterr().err


CALLS = """
import sys
import numpy as np
from lifelong.errors import LifelongError
from lifelong.runtime import Bundle
place, image = sys.argv[1], np.zeros((4, 4), np.uint8)
calls = [lambda given=given: Bundle(place, given) for given in ("x", -3, True, 1.5, 1025)]
calls += [lambda given=given: Bundle(given) for given in (None, "", 3)]
calls += [lambda: Bundle(place, np.int64(0)).predict(image, 3)]
calls += [lambda given=given: Bundle(place).predict(image, infer=given) for given in ("foo", ["auto"], None)]
calls += [lambda: Bundle(place).predict(image, skip_broken="no")]
for call in calls:
    try:
        print(call())
    except LifelongError as error:
        print(error)
"""


def test_arguments_that_do_not_fit(tmp_path):
    """In a process of its own, where nothing but the bundle checks them."""
    command = [sys.executable, "-c", CALLS, str(made_bundle(tmp_path / "b"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ways = "expected one of 'auto', 'method', 'confidence'"
    assert done.stdout.splitlines() == [
        *(f"Bundle: threads = {given}: expected an integer >= 0 and <= 1024" for given in ("'x'", "-3", "True", "1.5", "1025")),
        *(f"Bundle: folder = {given}: expected a path" for given in ("None", "''", "3")),
        "Bundle.predict: task = 3: expected a text",
        *(f"Bundle.predict: infer = {given}: {ways}" for given in ("'foo'", "['auto']", "None")),
        "Bundle.predict: skip_broken = 'no': expected true or false",
    ]


def test_arrays_of_every_kind(tmp_path):
    """What a `Learner` takes; the same code reads it."""
    bundle = Bundle(made_bundle(tmp_path / "b", brightness_model(scale=0.01)))
    rows = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    wanted = bundle.predict(rows)
    forms = (rows.transpose(0, 3, 1, 2), rows / 255, rows.astype(np.float32), rows.astype(np.int64), rows.astype(np.uint16) * 257)
    for form in (*forms, list(rows / 255), list(rows.transpose(0, 3, 1, 2)), (row / 255 for row in rows)):
        assert bundle.predict(form) == wanted
    assert bundle.predict(rows[..., 0]) == bundle.predict(rows[..., :1]) == bundle.predict(list(rows[..., 0] / 255))
    assert bundle.predict(rows[:0]) == []
    tensors = torch.from_numpy(rows).permute(0, 3, 1, 2)  # read without importing torch: who has one has imported it
    for some in (tensors, tensors / 255, list(tensors), tensors.half() / 255):
        assert bundle.predict(some) == wanted
    with pytest.raises(LifelongError, match="either 3 grey images or one image with 3 channels"):
        bundle.predict(rows[:3, ..., 0])


def test_unusable_images(tmp_path, caplog):
    bundle = Bundle(made_bundle(tmp_path / "b"))
    with pytest.raises(LifelongError, match=r"1 of 2 images cannot be used: image 1 \(no image"):
        bundle.predict([grey(1), b"nothing"])
    (only,) = bundle.predict([b"nothing", grey(1)], skip_broken=True)
    assert only.image == "image 1"
    assert "1 of 2 images cannot be used" in caplog.text
    with pytest.raises(LifelongError, match="none is left"):
        bundle.predict([b"nothing"], skip_broken=True)


def test_damage_is_said_in_one_line(tmp_path):
    bundle = made_bundle(tmp_path / "b")
    file = bundle / "model-001.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(LifelongError, match="does not match the digest"):
        Bundle(bundle)
    file.unlink()
    with pytest.raises(LifelongError, match=r"model-001\.onnx: No such file"):
        Bundle(bundle)
    text = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(text.replace('"light"', '"night"'))
    with pytest.raises(LifelongError, match=r"bundle\.json: does not match its digest"):
        Bundle(bundle)
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(LifelongError, match="not valid JSON"):
        Bundle(bundle)
    with pytest.raises(LifelongError, match="give a folder written by lifelong export RUN --bundle"):
        Bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 3}, "of format 3, and this version reads 1 and 2"),
        (
            {
                "tasks": [
                    {
                        "name": "a",
                        "classes": ["x"],
                        "image_size": 4,
                        "normalization": {"mean": [0.5], "std": [0.5]},
                        "limit": None,
                        "model": 0,
                        "output": "y",
                    }
                ]
            },
            "no normalization of three channels",
        ),
        ({"together": 1}, "'together' is not of type bool"),
        ({"models": [{"inputs": [], "gives": []}]}, "'models.0.sha256' is missing"),
        ({"tasks": []}, "has no tasks"),
        ({"recognizes": ["../../etc"]}, "knows only tasks and strangeness"),
        ({"models": [{"sha256": "", "inputs": ["images_999999"], "gives": []}]}, "'images_999999', which nothing gives"),
        ({"models": [{"sha256": "", "inputs": ["x"], "gives": ["x"]}]}, "'x', which nothing gives"),
    ],
)
def test_a_description_that_cannot_be(tmp_path, changes, said):
    with pytest.raises(LifelongError, match=said) as caught:
        Bundle(made_bundle(tmp_path / "b", **changes))
    assert "\n" not in str(caught.value)


def test_no_other_file_is_read(tmp_path):
    """Weights in another file, at any depth of the model, are refused whether the file exists or not."""
    (tmp_path / "secret").write_bytes(np.float32(1).tobytes())
    model = brightness_model()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "scale")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    with pytest.raises(LifelongError, match="keeps weights in other files"):
        Bundle(made_bundle(tmp_path / "b", model))
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    node = helper.make_node("If", ["condition"], ["c"], then_branch=inner, else_branch=inner)
    hidden = helper.make_model(helper.make_graph([node], "outer", [], []))
    assert has_external_data(hidden.SerializeToString())
    assert not has_external_data(brightness_model().SerializeToString())


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\x7f", b"not an ONNX model at all"])
def test_something_else_than_a_model(tmp_path, content):
    with pytest.raises(LifelongError, match=r"model-001\.onnx") as caught:
        Bundle(made_bundle(tmp_path / "b", content)).predict(grey(1))
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_give_what_is_said(tmp_path):
    about = {"name": "light", "classes": ["bright", "dark"], "image_size": 4, "model": 0, "output": "other", "limit": None}
    tasks = [about | {"normalization": {"mean": [0.0] * 3, "std": [1.0] * 3}}]
    with pytest.raises(LifelongError, match="cannot be computed"):
        Bundle(made_bundle(tmp_path / "b", tasks=tasks)).predict(grey(1))


def test_a_model_of_other_shapes(tmp_path):
    about = {"name": "light", "classes": ["a", "b", "c"], "image_size": 4, "model": 0, "output": "logits_001", "limit": None}
    tasks = [about | {"normalization": {"mean": [0.0] * 3, "std": [1.0] * 3}}]
    with pytest.raises(LifelongError, match=r"'logits_001' has the shape \(1, 2\)"):
        Bundle(made_bundle(tmp_path / "b", tasks=tasks)).predict(grey(1))
    model = brightness_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([0, 2, 3]), "axes"))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1]), "one"))
    with pytest.raises(LifelongError, match="which its description denies"):
        Bundle(made_bundle(tmp_path / "b", model)).predict([grey(1), grey(2)])


def test_the_shape_of_a_description():
    assert mismatch({"a": [1]}, {"a": [int]}) == ""
    assert mismatch({"a": [True]}, {"a": [int]}) == "'a.0' is not of type int"
    assert mismatch({"a": None}, {"a": (float, None)}) == ""
    assert mismatch([], SHAPE) == "'it' is not an object"
