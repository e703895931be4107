"""Write cells.safetensors: an LSTM with peepholes and a GRU that resets before the product, by onnx, in float64.

    pip install onnx==1.23.2 onnxruntime==1.31.1; python tests/oracles/make_cells.py

The numbers are those of onnx's reference evaluator; onnxruntime, which has float32 only, is asked to agree first.
Weights are stored in onnx's gate orders: input, output, forget, cell; update, reset, hidden; peepholes input, output,
forget. onnx has two biases for each gate.
"""

import importlib.metadata
import pathlib

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save_file

WIDTH, BATCH, STEPS = 5, 2, 7


def model(kind: str, inputs: dict[str, np.ndarray], outputs: list[str], **attributes: int):
    """One node that reads `inputs` by their names; a name that begins with "_" is an input left out."""
    arguments = ["" if name.startswith("_") else name for name in inputs]
    node = helper.make_node(kind, arguments, outputs, hidden_size=WIDTH, **attributes)
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}
    given = [helper.make_tensor_value_info(k, kinds[v.dtype], v.shape) for k, v in inputs.items() if k[0] != "_"]
    kind_of = kinds[inputs["x"].dtype]
    made = [helper.make_tensor_value_info(k, kind_of, None) for k in outputs]
    graph = helper.make_graph([node], "cell", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(kind: str, inputs: dict[str, np.ndarray], outputs: list[str], **attributes: int) -> dict[str, np.ndarray]:
    """The reference's outputs, once onnxruntime agrees with them in float32."""
    feed = {k: v for k, v in inputs.items() if k[0] != "_"}
    exact = ReferenceEvaluator(model(kind, inputs, outputs, **attributes)).run(None, feed)
    small = {k: v.astype(np.float32) for k, v in inputs.items()}
    session = onnxruntime.InferenceSession(model(kind, small, outputs, **attributes).SerializeToString())
    for name, ours, theirs in zip(
        outputs, exact, session.run(None, {k: v for k, v in small.items() if k[0] != "_"}), strict=True
    ):
        assert ours.shape == theirs.shape, (kind, name, ours.shape, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=f"{kind} {name}")
    return dict(zip(outputs, exact, strict=True))


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    numbers: dict[str, np.ndarray] = {}
    for kind, gates, attributes in (("LSTM", 4, {}), ("GRU", 3, {"linear_before_reset": 0})):
        inputs = {
            "x": rng.standard_normal((STEPS, BATCH, WIDTH)),
            "w": 0.5 * rng.standard_normal((1, gates * WIDTH, WIDTH)),
            "r": 0.5 * rng.standard_normal((1, gates * WIDTH, WIDTH)),
            "b": 0.5 * rng.standard_normal((1, 2 * gates * WIDTH)),
            "_lengths": np.zeros(0),
            "h": rng.standard_normal((1, BATCH, WIDTH)),
        }
        outputs = ["y", "y_h"]
        if kind == "LSTM":
            inputs |= {"c": rng.standard_normal((1, BATCH, WIDTH)), "p": rng.standard_normal((1, 3 * WIDTH))}
        numbers |= {f"{kind}.{k}": v for k, v in inputs.items() if k[0] != "_"}
        numbers |= {f"{kind}.{k}": v for k, v in run(kind, inputs, outputs, **attributes).items()}
    packages = {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")}
    save_file(numbers, pathlib.Path(__file__).with_name("cells.safetensors"), packages)
