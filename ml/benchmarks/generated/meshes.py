"""DAD-3DHeads in its own layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ml.benchmarks.generated.images import write_image
from ml.records.atomic import write_text


@dataclass(frozen=True)
class DadItem:
    """An item of DAD-3DHeads.

    Attributes:
        item_id: its name.
        image_rgb: (H, W, 3) uint8 RGB.
        vertices: (V, 3) the mesh in its own frame.
        model_view: (4, 4) brings it before a camera that looks along -z, y up.
        projection: (4, 4): x over w, and the height less y over w, are pixels.
        attributes: what the list says of it.
    """

    item_id: str
    image_rgb: np.ndarray
    vertices: np.ndarray
    model_view: np.ndarray
    projection: np.ndarray
    attributes: Mapping[str, object] = field(default_factory=dict)

    def box_xywh(self) -> list[float]:
        """Return the box around the projected mesh, px."""
        ones = np.ones((len(self.vertices), 1))
        clip = np.concatenate([self.vertices, ones], 1) @ (self.projection @ self.model_view).T
        height = self.image_rgb.shape[0]
        points = np.stack([clip[:, 0] / clip[:, 3], height - clip[:, 1] / clip[:, 3]], axis=1)
        low, high = points.min(axis=0), points.max(axis=0)
        return [*low.tolist(), *(high - low).tolist()]


def weak_perspective(scale: float, shift_px: np.ndarray, height: int) -> np.ndarray:
    """Return the projection that takes metres to pixels by a scale and a shift alone; (4, 4).

    Args:
        scale: px per metre.
        shift_px: (2,) where the frame's origin appears.
        height: of the image, px.
    """
    matrix = np.diag([scale, scale, 1.0, 1.0])
    matrix[0, 3], matrix[1, 3] = shift_px[0], height - shift_px[1]
    return matrix


def write_dad(root: Path, items: Iterable[DadItem], subset: str = "val") -> Path:
    """Write images, annotations and the list of a subset.

    Args:
        root: receives the folder `DAD-3DHeadsDataset`.
        items: the items.
        subset: train, val or test; the last has no annotations.

    Returns:
        `root`.
    """
    folder = root / "DAD-3DHeadsDataset" / subset
    entries = []
    for item in items:
        write_image(folder / "images" / f"{item.item_id}.png", item.image_rgb)
        entry: dict[str, object] = {
            "item_id": item.item_id,
            "img_path": f"{subset}/images/{item.item_id}.png",
            "bbox": item.box_xywh(),
            "attributes": dict(item.attributes),
        }
        if subset != "test":
            entry["annotation_path"] = f"{subset}/annotations/{item.item_id}.json"
            annotation = {
                "vertices": item.vertices.round(6).tolist(),
                "model_view_matrix": item.model_view.tolist(),
                "projection_matrix": item.projection.tolist(),
            }
            write_text(folder / "annotations" / f"{item.item_id}.json", json.dumps(annotation))
        entries.append(entry)
    write_text(folder / f"{subset}.json", json.dumps(entries))
    return root
