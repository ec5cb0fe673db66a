"""Non-maximum suppression as the end of an ONNX graph, with thresholds that can be given."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ml.model.export import suppression_inputs
from ml.model.postprocess import PostprocessConfig

CANDIDATES = ("candidate_boxes", "candidate_scores", "candidate_flame")
"""Outputs of the graph that `add_suppression` goes on from."""


def add_suppression(model: onnx.ModelProto, config: PostprocessConfig) -> onnx.ModelProto:
    """Let a graph of candidates end in heads.

    Args:
        model: its outputs are `candidate_boxes` (B, K, 4), `candidate_scores` (B, K) and
            `candidate_flame` (B, K, 413), best first; changed in place.
        config: defaults of the optional inputs.

    Returns:
        The model; its outputs are boxes, scores, flame and image_index, one row a head.
    """
    graph = model.graph
    defaults = suppression_inputs(config)
    constants: dict[str, np.ndarray] = {
        "suppress_axis": np.array([1], np.int64),
        "suppress_columns": np.array([0, 2], np.int64),
        "suppress_image": np.array(0, np.int64),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in (defaults | constants).items()
    )
    # An input with an initializer of the same name is optional.
    graph.input.extend(
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [1])
        for name, value in defaults.items()
    )
    graph.node.extend(_nodes())
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, ["heads", *shape])
        for name, kind, shape in (
            ("boxes", TensorProto.FLOAT, [4]),
            ("scores", TensorProto.FLOAT, []),
            ("flame", TensorProto.FLOAT, [413]),
            ("image_index", TensorProto.INT64, []),
        )
    )
    return model


def _nodes() -> list[onnx.NodeProto]:
    """Suppress, then pick the rows of what is left."""
    node = helper.make_node
    limits = ["max_heads", "iou_threshold", "score_threshold"]
    return [
        node("Unsqueeze", ["candidate_scores", "suppress_axis"], ["suppress_scores"]),
        # rows (image, class, candidate), image by image, best first
        node("NonMaxSuppression", ["candidate_boxes", "suppress_scores", *limits], ["chosen"]),
        node("Gather", ["chosen", "suppress_columns"], ["chosen_rows"], axis=1),
        node("GatherND", ["candidate_boxes", "chosen_rows"], ["boxes"]),
        node("GatherND", ["candidate_scores", "chosen_rows"], ["scores"]),
        node("GatherND", ["candidate_flame", "chosen_rows"], ["flame"]),
        node("Gather", ["chosen", "suppress_image"], ["image_index"], axis=1),
    ]
