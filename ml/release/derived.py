"""Quantities that an export can include in addition to the 413 parameters, computed from them.

Training a landmark or pose estimator then needs no head model. Numbers are those of
`ml.inference.heads`, which detections have too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml.flame.head_model import NUM_VERTICES, HeadModel
from ml.inference.heads import PARTS, DetectedHeads, HeadShapes
from ml.records.heads import Heads
from ml.release.source import DatasetItem

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Derived:
    """Something that can be asked for.

    Attributes:
        doc: what it is, with unit and frame.
        shape: of one head's.
        of: computes it for all heads of an image, (N, *shape).
    """

    doc: str
    shape: tuple[int, ...]
    of: Callable[[DetectedHeads], Array]


def _part_boxes(heads: DetectedHeads) -> Array:
    known = heads.shapes.head_model.regions
    nothing = np.zeros((len(heads), 4), np.float32)
    boxes = [heads.part_boxes(name) if name in known else nothing for name in PARTS]
    return np.stack(boxes, axis=1).astype(np.float32)


DERIVED: Final[Mapping[str, Derived]] = {
    "landmarks": Derived(
        "68 landmarks in iBUG's order: x, y; image px", (68, 2), lambda h: h.landmarks_px
    ),
    "euler": Derived(
        "pitch, yaw, roll; degrees, a frontal head has 0", (3,), lambda h: h.euler_deg
    ),
    "rotation": Derived("3x3, FLAME axes to image axes", (3, 3), lambda h: h.rotations),
    "part_boxes": Derived(
        f"boxes xyxy around {', '.join(PARTS)}, visible or not; image px, zeros for a part that "
        "the head model does not tell",
        (len(PARTS), 4),
        _part_boxes,
    ),
    "vertices": Derived(
        "all vertices: x right, y down, z away from the camera; image px",
        (NUM_VERTICES, 3),
        lambda h: h.vertices_px,
    ),
}
"""Name -> what it is."""


def check_names(names: Sequence[str]) -> None:
    """Refuse what cannot be derived.

    Raises:
        ValueError: a name is unknown.
    """
    if unknown := sorted(set(names) - set(DERIVED)):
        raise ValueError(f"export: cannot derive {unknown}; there are {', '.join(DERIVED)}")


def derive(
    items: Iterable[DatasetItem], names: Sequence[str], head_model: HeadModel
) -> Iterator[DatasetItem]:
    """Add derived arrays to the samples of a dataset.

    Args:
        items: the samples, streamed.
        names: keys of `DERIVED`.
        head_model: the one that the parameters belong to.

    Yields:
        The samples, with (N, ...) float32 arrays in `derived`; NaN for heads without parameters.

    Raises:
        ValueError: a name is unknown.
    """
    check_names(names)
    shapes = HeadShapes(head_model)
    for item in items:
        valid = item.flame_valid
        heads = Heads(item.boxes_xyxy[valid], item.scores[valid], item.flame[valid])
        detected = DetectedHeads(heads, shapes)
        arrays = {}
        for name in names:
            array = np.full((len(item), *DERIVED[name].shape), np.nan, np.float32)
            if valid.any():
                array[valid] = DERIVED[name].of(detected)
            arrays[name] = array
        yield replace(item, derived=arrays)
