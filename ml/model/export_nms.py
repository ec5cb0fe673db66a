"""Assembly of the ONNX graph: candidates, suppression, parameters of the remaining heads."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from ml.flame.params import NUM_PARAMETERS
from ml.model.postprocess import PostprocessConfig, suppression_inputs

_MAPS = ("pose_map_8", "pose_map_16", "pose_map_32")
FIRST_OUTPUTS = ("candidate_boxes", "candidate_scores", "candidate_anchors", *_MAPS)
"""Outputs of the part before the suppression."""
SECOND_INPUTS = (*_MAPS, "image_index", "anchor_index")
"""Inputs of the part behind it."""
_PREFIX = "kept/"


def join_parts(
    first: onnx.ModelProto, second: onnx.ModelProto, config: PostprocessConfig
) -> onnx.ModelProto:
    """Return candidates, suppression and the remaining heads' parameters as one graph.

    Args:
        first: images to `FIRST_OUTPUTS`; changed in place.
        second: `SECOND_INPUTS` to `flame`.
        config: defaults of the optional inputs.

    Returns:
        The model; its outputs are boxes, scores, flame and image_index, one row per head.
    """
    graph = first.graph
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
    graph.node.extend(_suppression())
    # Names of the second part may be those of the first: all get a prefix.
    behind = onnx.compose.add_prefix(second, _PREFIX).graph
    graph.node.extend(
        helper.make_node("Identity", [name], [_PREFIX + name]) for name in SECOND_INPUTS
    )
    graph.initializer.extend(behind.initializer)
    graph.node.extend(behind.node)
    graph.node.append(helper.make_node("Identity", [_PREFIX + "flame"], ["flame"]))
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, ["heads", *shape])
        for name, kind, shape in (
            ("boxes", TensorProto.FLOAT, [4]),
            ("scores", TensorProto.FLOAT, []),
            ("flame", TensorProto.FLOAT, [NUM_PARAMETERS]),
            ("image_index", TensorProto.INT64, []),
        )
    )
    return first


def _suppression() -> list[onnx.NodeProto]:
    """Suppress, then gather the rows of the remaining heads."""
    node = helper.make_node
    limits = ["max_heads", "iou_threshold", "score_threshold"]
    return [
        node("Unsqueeze", ["candidate_scores", "suppress_axis"], ["suppress_scores"]),
        # rows (image, class, candidate), image by image, best first
        node("NonMaxSuppression", ["candidate_boxes", "suppress_scores", *limits], ["chosen"]),
        node("Gather", ["chosen", "suppress_columns"], ["chosen_rows"], axis=1),
        node("GatherND", ["candidate_boxes", "chosen_rows"], ["boxes"]),
        node("GatherND", ["candidate_scores", "chosen_rows"], ["scores"]),
        node("GatherND", ["candidate_anchors", "chosen_rows"], ["anchor_index"]),
        node("Gather", ["chosen", "suppress_image"], ["image_index"], axis=1),
    ]
