"""The heads of one image, with drawings, meshes, maps, crops and JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ml.flame.params import split
from ml.imaging.boxes import clip_boxes, xyxy_to_xywh
from ml.inference.alignment import AlignedHead, align_head
from ml.inference.heads import PARTS, DetectedHeads, HeadShapes
from ml.inference.options import DRAW_METHODS, DrawMethod, MeshFormat, MeshUnit
from ml.labels.coco import CocoBox, CocoDataset, CocoImage, to_coco_dict
from ml.records.heads import Heads

if TYPE_CHECKING:
    from ml.inference.drawing import Style

# Drawings and meshes are imported where they are made: the rasterizer's compiler takes a second,
# and most results are asked for as numbers.
_STYLES: dict[DrawMethod, tuple[Style, ...]] = {
    "full": ("mesh", "box"),
    "bbox": ("box",),
    "mesh": ("mesh",),
    "contour": ("contour",),
    "wireframe": ("wireframe",),
    "landmarks": ("landmarks",),
    "points": ("points",),
    "pose": ("pose",),
}


class PredictionResult:
    """Heads of one image; making images, meshes or text of them changes nothing.

    Attributes:
        name: what the image is called.
        image_rgb: (H, W, 3) uint8 RGB, upright.
        time_s: of a video's frame, seconds after the first; None for images.
        heads: the heads, in the image's pixels; their boxes are cut at its border.
        tracks: (N,) int64 number of the person that each head is in a film, -1 if of none yet;
            None without tracking.
    """

    tracks: np.ndarray | None = None

    def __init__(
        self,
        image_rgb: np.ndarray,
        heads: Heads,
        shapes: HeadShapes | None,
        name: str = "image",
        time_s: float | None = None,
    ) -> None:
        """Cut the boxes at the border; heads that lie wholly outside are dropped.

        Args:
            image_rgb: (H, W, 3) uint8 RGB.
            heads: heads in the image's pixels.
            shapes: the head model of their parameters, None for boxes alone.
            name: what the image is called.
            time_s: of a video's frame, seconds after the first.
        """
        self.name = name
        self.time_s = time_s
        self.image_rgb = image_rgb
        height, width = image_rgb.shape[:2]
        boxes = clip_boxes(heads.boxes_xyxy, width, height)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        cut = Heads(boxes[inside], heads.scores[inside], heads.flame[inside])
        self.heads = DetectedHeads(cut, shapes)
        self._shapes = shapes

    def replaced(self, heads: Heads, tracks: np.ndarray) -> PredictionResult:
        """Return the same image with other parameters of its heads, and their track ids.

        Args:
            heads: the same number of heads, with the same boxes.
            tracks: (N,) number of the person that each is.
        """
        result = PredictionResult(self.image_rgb, heads, self._shapes, self.name, self.time_s)
        result.tracks = tracks
        return result

    def __len__(self) -> int:
        return len(self.heads)

    def __repr__(self) -> str:
        height, width = self.image_rgb.shape[:2]
        scores = ", ".join(f"{score:.2f}" for score in self.heads.scores)
        return f"PredictionResult({self.name!r}, {width}x{height}, {len(self)} heads: [{scores}])"

    def draw(self, method: DrawMethod = "full") -> np.ndarray:
        """Draw the heads on a copy of the image.

        Args:
            method: full (mesh and box), bbox, mesh (shaded, small heads outlined), contour
                (outlines of head and face), wireframe, landmarks (the 68), points (the vertices of
                the face) or pose (axes: x red, y green, z blue).

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            ValueError: the method is unknown, or needs a head model and there is none.
        """
        if method not in _STYLES:
            raise ValueError(
                f"draw: method must be one of {', '.join(DRAW_METHODS)}, got {method!r}"
            )
        from ml.inference.drawing import draw_heads

        geometry = None if method == "bbox" else self.heads.shapes.drawn
        return draw_heads(self.image_rgb, self.heads.raw, geometry, _STYLES[method], self.tracks)

    def pncc(self) -> np.ndarray:
        """Return the Projected Normalized Coordinate Code map: heads in their template's colours.

        One depth buffer decides, also between heads: of two heads the one with more pixels per
        metre is nearer.

        Returns:
            (H, W, 3) uint8 RGB, black where no head is.
        """
        from ml.flame.pncc import pncc_map

        height, width = self.image_rgb.shape[:2]
        nearness = split(self.heads.flame).scale[:, 0]
        vertices = list(self.heads.vertices_px) if len(self) else []
        model = self.heads.shapes.head_model
        return pncc_map(vertices, model, height, width, [-float(n) for n in nearness])

    def aligned_heads(self, size: int | None = None, margin: float = 0.1) -> list[AlignedHead]:
        """Return each head cut out upright: turned about the centre of its skull, at any yaw.

        Args:
            size: side of the images, px; the heads' size in the image by default.
            margin: added on each side, as a fraction of the head's size.

        Returns:
            A square image a head, grey where it reaches over the image's border.

        Raises:
            ValueError: size is not positive.
        """
        heads = self.heads
        points = heads.vertices_px[:, heads.shapes.head_model.region("head"), :2]
        return [
            align_head(self.image_rgb, points[i], heads.skull_centres_px[i], rotation, size, margin)
            for i, rotation in enumerate(heads.rotations)
        ]

    def save_meshes(
        self, folder: Path | str, format: MeshFormat = "obj", unit: MeshUnit = "m"
    ) -> list[Path]:
        """Write every head to a separate mesh file, upright: y up, z to the viewer.

        Args:
            folder: created if missing; receives head_0.obj and so on.
            format: obj or glb.
            unit: m: metres about the centre of the skull. px: pixels of the image, from its lower
                left corner.

        Returns:
            The files.

        Raises:
            ValueError: format or unit is unknown.
        """
        from ml.inference.meshes import save_meshes

        return save_meshes(Path(folder), self.heads, self.image_rgb.shape[0], format, unit)

    def scene_glb(self) -> bytes:
        """Return all heads in one GLB, placed as in the image; its longer side is one unit.

        Returns:
            The file's content.

        Raises:
            ValueError: there are no heads, and a GLB without a mesh is none; or no head model.
        """
        from ml.inference.meshes import mesh_bytes, upright_vertices

        if not len(self):
            raise ValueError(f"scene_glb: {self.name} has no heads; there is nothing to place")
        height, width = self.image_rgb.shape[:2]
        vertices = upright_vertices(self.heads, "px", height)
        centred = (vertices - np.array([width / 2, height / 2, 0])) / max(height, width)
        return mesh_bytes(list(centred), self.heads.shapes.head_model, "glb")

    def part_boxes(self) -> dict[str, np.ndarray]:
        """Return boxes around the parts that each head's model names: face, ears, eyes, lips, neck.

        Returns:
            Name to (N, 4) float32 xyxy, image px, visible or not, not cut at the border.
        """
        known = self.heads.shapes.head_model.regions
        return {name: self.heads.part_boxes(name) for name in PARTS if name in known}

    def to_json(self) -> dict[str, Any]:
        """Return all results but pixels and vertices as numbers, texts, lists and dictionaries.

        Returns:
            `image` (name, width, height, of a video's frame also time_s) and `heads`: box_xyxy,
            score, pose_deg, flame, and with a head model landmarks_px and parts, in a film that is
            followed also track. Pixels and degrees; jaw in rad; scale in px per m.
        """
        height, width = self.image_rgb.shape[:2]
        image: dict[str, Any] = {"name": self.name, "width": width, "height": height}
        if self.time_s is not None:
            image["time_s"] = round(self.time_s, 6)
        return {
            "image": image,
            "heads": [self._head_json(index) for index in range(len(self))],
        }

    def _head_json(self, index: int) -> dict[str, Any]:
        head = self.heads[index]
        found = {
            "box_xyxy": _numbers(head.box_xyxy),
            "score": _numbers(np.array([head.score]))[0],
            "pose_deg": dict(zip(("pitch", "yaw", "roll"), _numbers(head.euler_deg), strict=True)),
            "flame": {name: _numbers(part) for name, part in head.parameters._asdict().items()},
        }
        if self.tracks is not None:
            found["track"] = int(self.tracks[index])
        if self.heads.has_model:
            found["landmarks_px"] = [_numbers(point) for point in head.landmarks_px]
            parts = self.part_boxes()
            found["parts"] = {name: _numbers(boxes[index]) for name, boxes in parts.items()}
        return found

    def to_coco(self) -> dict[str, Any]:
        """Return a COCO detection file's content of this image alone; see `coco_of`."""
        return coco_of([self])


def coco_of(results: Iterable[PredictionResult]) -> dict[str, Any]:
    """Return a COCO detection file's content.

    Args:
        results: of images with different names; only their numbers are kept.

    Returns:
        Keys info, categories, images, annotations; an annotation includes its `score`.

    Raises:
        CocoError: two images have the same name.
    """
    images: list[CocoImage] = []
    boxes: list[CocoBox] = []
    scores: list[float] = []
    for number, result in enumerate(results, 1):
        height, width = result.image_rgb.shape[:2]
        where = Path(result.name)
        images.append(CocoImage(number, result.name, width, height, where.parent.name, where.stem))
        for box, score in zip(
            xyxy_to_xywh(result.heads.boxes_xyxy), result.heads.scores, strict=True
        ):
            x, y, w, h = (float(value) for value in box)
            boxes.append(CocoBox(len(boxes) + 1, number, (x, y, w, h)))
            scores.append(_numbers(np.array([score]))[0])
    content = to_coco_dict(CocoDataset(tuple(images), tuple(boxes), "heads found by vggheads"))
    for annotation, score in zip(content["annotations"], scores, strict=True):
        annotation["score"] = score
    return content


def _numbers(array: np.ndarray) -> list[float]:
    """Return float32 numbers with no more digits than it takes to read them back."""
    return [float(str(value)) for value in np.asarray(array, np.float32).reshape(-1)]
