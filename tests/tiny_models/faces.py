"""ONNX stand-ins of face models that see bright squares: same inputs, outputs and arithmetic."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
POINTS = (0.3, 0.3, 0.7, 0.3, 0.5, 0.5, 0.35, 0.7, 0.65, 0.7)
"""Landmarks in a cell of one stride: eyes, nose, mouth corners."""


class Graph:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def constant(self, value: np.ndarray) -> str:
        """A constant; returns its name."""
        self._count += 1
        name = f"c{self._count}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes) -> str:
        """A node; returns the name of its output."""
        self._count += 1
        name = output or f"n{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def save(self, path: Path, input_shape: tuple[int, ...], outputs: dict[str, tuple]) -> Path:
        """Write the model."""
        graph = helper.make_graph(
            self.nodes,
            "faces",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(path))
        return path

    def brightness(self, stride: int, scale: float, shift: float) -> str:
        """(1, 1, H/s, W/s) mean brightness of each cell, 0 to 1."""
        grey = self.node("ReduceMean", "input", axes=[1], keepdims=1)
        cells = self.node(
            "AveragePool", grey, kernel_shape=[stride, stride], strides=[stride, stride]
        )
        scaled = self.node("Mul", cells, self.constant(np.float32([scale])))
        return self.node("Add", scaled, self.constant(np.float32([shift])))


def build_yunet(path: Path, size: int = 64) -> Path:
    """YuNet's twelve outputs; a bright cell of 16 px is a face."""
    graph, outputs = Graph(), {}
    for stride in STRIDES:
        count = (size // stride) ** 2
        active = 1.0 if stride == 16 else 0.0
        bright = graph.brightness(stride, active / 255, 0.0)
        shape = graph.constant(np.array([1, -1, 1], np.int64))
        cells = graph.node("Reshape", bright, shape)
        zero = graph.node("Mul", cells, graph.constant(np.float32([0])))
        for name, width, values in (
            ("cls", 1, None),
            ("obj", 1, None),
            ("bbox", 4, (0.5, 0.5, 0, 0)),
            ("kps", 10, POINTS),
        ):
            output = f"{name}_{stride}"
            if values is None:
                graph.node("Clip", cells, graph.constant(np.float32(0)),
                           graph.constant(np.float32(1)), output=output)  # fmt: skip
            else:
                constant = graph.constant(np.float32([[values]]))
                graph.node("Add", zero, constant, output=output)
            outputs[output] = (1, count, width)
    return graph.save(path, (1, 3, size, size), outputs)


def build_scrfd(
    path: Path, size: int = 64, landmarks: bool = True, batch: int | str = 1, joined: bool = True
) -> Path:
    """SCRFD's nine outputs (six without landmarks); a bright cell of 16 px is a face.

    Published files join the rows of all images of a batch; `joined=False` gives each its own.
    """
    rank, lead = ([-1, 1], ()) if joined else ([0, -1, 1], (batch,))
    graph = Graph()
    outputs: dict[str, tuple] = {}
    kinds = [("score", 1), ("bbox", 4), *([("kps", 10)] if landmarks else [])]
    for kind, width in kinds:
        for stride in STRIDES:
            count = 2 * (size // stride) ** 2
            active = 1.0 if stride == 16 else 0.0
            # Pixels come as (x - 127.5) / 128.
            bright = graph.brightness(stride, active / 2, active / 2)
            shape = graph.constant(np.array(rank, np.int64))
            column = graph.node("Reshape", bright, shape)
            twice = graph.node("Concat", column, column, axis=-1)
            rows = graph.node("Reshape", twice, shape)
            name = f"{kind}_{stride}"
            if kind == "score":
                graph.node("Identity", rows, output=name)
            else:
                values = (0, 0, 1, 1) if kind == "bbox" else POINTS
                zero = graph.node("Mul", rows, graph.constant(np.float32([0])))
                graph.node("Add", zero, graph.constant(np.float32([values])), output=name)
            outputs[name] = (*lead, count, width)
    return graph.save(path, (batch, 3, size, size), outputs)


def build_retinaface(path: Path, size: int = 64, batch: int | str = 1) -> Path:
    """RetinaFace's three outputs; a bright cell of 8 px is a face of 16 px around its middle."""
    graph, columns = Graph(), []
    for stride in STRIDES:
        active = 1.0 if stride == 8 else 0.0
        # Pixels come less their mean, about 115.
        bright = graph.brightness(stride, active / 255, active * 115 / 255)
        shape = graph.constant(np.array([0, -1, 1], np.int64))
        column = graph.node("Reshape", bright, shape)
        zero = graph.node("Mul", column, graph.constant(np.float32([0])))
        both = graph.node("Concat", column, zero, axis=-1)
        columns.append(graph.node("Reshape", both, shape))
    scores = graph.node("Concat", *columns, axis=1)
    zero = graph.node("Mul", scores, graph.constant(np.float32([0])))
    background = graph.node("Sub", graph.constant(np.float32([1])), scores)
    graph.node("Concat", background, scores, axis=2, output="conf")
    graph.node("Add", zero, graph.constant(np.zeros((1, 1, 4), np.float32)), output="loc")
    # Landmarks relative to the prior's middle, in tenths of its side.
    points = (np.float32(POINTS) - 0.5) * 10
    graph.node("Add", zero, graph.constant(points.reshape(1, 1, 10)), output="landms")
    count = 2 * sum((size // stride) ** 2 for stride in STRIDES)
    shapes = {"loc": (batch, count, 4), "conf": (batch, count, 2), "landms": (batch, count, 10)}
    return graph.save(path, (batch, 3, size, size), shapes)


def build_embedder(path: Path, length: int, seed: int = 0, batch: int | str = 1) -> Path:
    """A face embedding of an aligned 112 px face: a random projection of its coarse colours."""
    graph = Graph()
    pooled = graph.node("AveragePool", "input", kernel_shape=[14, 14], strides=[14, 14])
    centred = graph.node("Mul", pooled, graph.constant(np.float32([1 / 128])))
    flat = graph.node("Reshape", centred, graph.constant(np.array([-1, 192], np.int64)))
    weights = np.random.default_rng(seed).normal(size=(192, length)).astype(np.float32)
    # Without the mean, or all faces would point the same way.
    weights -= weights.mean(axis=0)
    graph.node("MatMul", flat, graph.constant(weights), output="embedding")
    return graph.save(path, (batch, 3, 112, 112), {"embedding": (batch, length)})


def draw_face(
    person: int, column: int = 1, row: int = 1, size: tuple[int, int] = (96, 128)
) -> np.ndarray:
    """A bright square of 32 px, tinted and striped in the way of a person."""
    rng = np.random.default_rng(person)
    image = np.zeros((*size, 3), np.uint8)
    tint = rng.integers(150, 256, (4, 4, 3)).astype(np.uint8)
    tint[rng.random((4, 4)) < 0.5] = 255
    patch = cv2.resize(tint, (32, 32), interpolation=cv2.INTER_NEAREST)
    image[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = patch
    return image
