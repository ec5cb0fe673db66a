"""Landmark models in ONNX that follow their image: a template, moved by the crop's brightness."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny_models.faces import Graph


def build_1k3d68(
    path: Path, template: np.ndarray, gain: float = 0.0, batch: object = "None", side: object = 192
) -> Path:
    """insightface's `1k3d68.onnx`: 192 px, 1,103 points in 3D of which the last are the 68.

    Args:
        path: the file to write.
        template: (68, 2) landmarks, -1 to 1 from side to side.
        gain: how far x moves with the crop's mean brightness, 0 to 255.
        batch: the batch dimension that the file states.
        side: the sides that it states.
    """
    points = np.full((1103, 3), 9.0, np.float32)
    points[-68:, :2], points[-68:, 2] = template, 0.5
    slope = np.zeros_like(points)
    slope[:, 0] = gain / 255
    return _affine(path, points, slope, (batch, 3, side, side), "fc1")


def build_face_mesh(path: Path, template: np.ndarray, gain: float = 0.0) -> Path:
    """MediaPipe's face mesh as converted from TFLite: 192 px, channels last, points in px.

    Args:
        path: the file to write.
        template: (P, 2) landmarks, px.
        gain: how far x moves with the crop's mean brightness, 0 to 1.
    """
    points = np.concatenate([template, np.zeros((len(template), 1))], axis=1).astype(np.float32)
    slope = np.zeros_like(points)
    slope[:, 0] = gain
    return _affine(path, points, slope, (1, 192, 192, 3), "conv2d_21", with_score=True)


def _affine(
    path: Path,
    points: np.ndarray,
    slope: np.ndarray,
    input_shape: tuple,
    output: str,
    with_score: bool = False,
) -> Path:
    graph = Graph()
    outputs: dict[str, tuple] = {}
    mean = graph.node("ReduceMean", "input", axes=[1, 2, 3], keepdims=0)
    column = graph.node("Reshape", mean, graph.constant(np.array([-1, 1], np.int64)))
    if with_score:
        graph.node("Sigmoid", column, output="score")
        outputs["score"] = (input_shape[0], 1)
    moved = graph.node("MatMul", column, graph.constant(slope.reshape(1, -1)))
    graph.node("Add", moved, graph.constant(points.reshape(1, -1)), output=output)
    outputs[output] = (input_shape[0], points.size)
    return graph.save(path, input_shape, outputs)
