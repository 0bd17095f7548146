"""A sentence encoder's weights (safetensors, BERT) -> the ONNX graph that `nlu.encoder` runs.

Hubs offer most encoders as ONNX already. This is for those that come as a package, with weights alone: exporting them
the usual way takes PyTorch, a gigabyte for something that is done once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domain import SettingsError

_OPSET = 20  # the first with Gelu
_IR = 9
_MINUS = -1e4  # added to the attention scores of padding: its share becomes 0 in float32


def convert(folder: Path, target: Path) -> None:
    """`folder`/config.json and model.safetensors -> the file `target`.

    Inputs int64 (texts, tokens): input_ids, attention_mask, token_type_ids; output float32 (texts, tokens, dimension):
    last_hidden_state. The graph is BERT's encoder (Devlin et al., 2019) with layer normalisation after each part.
    Raises `SettingsError`: another architecture, or files that cannot be read.
    """
    try:
        import onnx
        from safetensors.numpy import load_file
    except ImportError as error:
        raise SettingsError(f"{error.name} is not installed: pip install -r requirements-encoder.txt") from error
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{folder}: no encoder that can be converted: {error}") from error
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise SettingsError(
            f"{folder}: only BERT's weights are converted here, not {config.get('model_type')};"
            " name an encoder that comes with model.onnx"
        )
    try:
        onnx.save(_Graph(weights, config).model(), target)
    except KeyError as error:
        raise SettingsError(
            f"{folder}: the weights lack {error}; name an encoder that comes with model.onnx"
        ) from error


class _Graph:
    """Collects nodes and weights; each method returns the name of its result."""

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]) -> None:
        self._weights, self._config = weights, config
        self._nodes: list[Any] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}

    def model(self) -> Any:
        from onnx import TensorProto, helper, numpy_helper

        result = self._embeddings()
        mask = self._mask()
        for number in range(self._config["num_hidden_layers"]):
            result = self._layer(f"encoder.layer.{number}", result, mask)
        self._nodes.append(helper.make_node("Identity", [result], ["last_hidden_state"]))
        shape = ["texts", "tokens"]
        names = ("input_ids", "attention_mask", "token_type_ids")
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in names],
            [
                helper.make_tensor_value_info(
                    "last_hidden_state", TensorProto.FLOAT, [*shape, self._config["hidden_size"]]
                )
            ],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)

    def _do(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"r{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _constant(self, name: str, value: npt.ArrayLike, kind: type = np.float32) -> str:
        self._constants[name] = np.ascontiguousarray(value, dtype=kind)
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _embeddings(self) -> str:
        def table(kind: str) -> str:
            return self._weight(f"embeddings.{kind}_embeddings.weight")

        tokens = self._do("Gather", table("word"), "input_ids")
        kinds = self._do("Gather", table("token_type"), "token_type_ids")
        length = self._do("Shape", "input_ids", start=1, end=2)
        first, axis = self._constant("first", [0], np.int64), self._constant("axis", [0], np.int64)
        places = self._do("Slice", table("position"), first, length, axis)
        return self._norm("embeddings.LayerNorm", self._do("Add", self._do("Add", tokens, kinds), places))

    def _mask(self) -> str:
        """1 and 0 -> what is added to the scores, (texts, 1, 1, tokens)."""
        from onnx import TensorProto

        numbers = self._do("Cast", "attention_mask", to=TensorProto.FLOAT)
        wide = self._do("Unsqueeze", numbers, self._constant("heads_and_rows", [1, 2], np.int64))
        absent = self._do("Sub", self._constant("one", 1.0), wide)
        return self._do("Mul", absent, self._constant("minus", _MINUS))

    def _linear(self, name: str, of: str) -> str:
        weight = self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        return self._do("Add", self._do("MatMul", of, weight), self._weight(f"{name}.bias"))

    def _norm(self, name: str, of: str) -> str:
        return self._do(
            "LayerNormalization",
            of,
            self._weight(f"{name}.weight"),
            self._weight(f"{name}.bias"),
            axis=-1,
            epsilon=float(self._config["layer_norm_eps"]),
        )

    def _layer(self, name: str, of: str, mask: str) -> str:
        attended = self._linear(f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", of, mask))
        seen = self._norm(f"{name}.attention.output.LayerNorm", self._do("Add", attended, of))
        inner = self._do("Gelu", self._linear(f"{name}.intermediate.dense", seen))
        return self._norm(
            f"{name}.output.LayerNorm", self._do("Add", self._linear(f"{name}.output.dense", inner), seen)
        )

    def _attention(self, name: str, of: str, mask: str) -> str:
        heads = self._config["num_attention_heads"]
        size = self._config["hidden_size"] // heads
        apart = self._constant("apart", [0, 0, heads, size], np.int64)
        together = self._constant("together", [0, 0, heads * size], np.int64)

        def part(kind: str, order: list[int]) -> str:
            return self._do("Transpose", self._do("Reshape", self._linear(f"{name}.{kind}", of), apart), perm=order)

        scores = self._do("MatMul", part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1]))
        scaled = self._do("Mul", scores, self._constant("scale", size**-0.5))
        shares = self._do("Softmax", self._do("Add", scaled, mask), axis=-1)
        mixed = self._do("Transpose", self._do("MatMul", shares, part("value", [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        return self._do("Reshape", mixed, together)
