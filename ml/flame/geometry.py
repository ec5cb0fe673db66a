"""Head parameters to vertices, rotations and angles; numpy in, numpy out."""

from __future__ import annotations

import numpy as np
import torch

from ml.flame.head_model import HeadModel
from ml.flame.layer import FlameLayer
from ml.flame.params import ROTATION, SCALE, TRANSLATION
from ml.flame.rotation import euler_deg_from_matrix, matrix_from_6d

# Meshes of at most this many heads at once: 5,023 vertices of 256 heads are 15 MB.
_CHUNK = 256
_IDENTITY_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class HeadGeometry:
    """A head model as plain functions of the 413 parameters.

    Vertices are those of the region that the paper measures: no ears, eyeballs and neck.
    """

    def __init__(self, head_model: HeadModel, region: str = "head") -> None:
        """Prepare the layer of one region.

        Args:
            head_model: the head model of the parameters.
            region: region whose vertices are returned.
        """
        self.head_model = head_model
        self.faces = region_faces(head_model, region)
        self.vertex_indices = head_model.region(region)
        self._layer = FlameLayer(head_model, vertices=region)

    def vertices_xyz_px(self, flame: np.ndarray) -> np.ndarray:
        """Return vertices in the image.

        Args:
            flame: (N, 413) parameters, image frame.

        Returns:
            (N, V, 3) float32 px, x right, y down, z away from the camera.
        """
        return self._run(self._layer.vertices_in_image, flame, len(self._layer.vertex_indices))

    def vertices_px(self, flame: np.ndarray) -> np.ndarray:
        """Return vertices in the image, (N, V, 2) px."""
        return self.vertices_xyz_px(flame)[:, :, :2]

    def landmarks_px(self, flame: np.ndarray) -> np.ndarray:
        """Return the 68 landmarks in the image, (N, 68, 2) px."""
        return self._run(self._layer.landmarks_in_image, flame, 68)[:, :, :2]

    def canonical_vertices(self, flame: np.ndarray) -> np.ndarray:
        """Return vertices of shape, expression and jaw alone: no rotation, translation or scale.

        Args:
            flame: (N, 413) parameters, image frame.

        Returns:
            (N, V, 3) float32 metres, FLAME's axes.
        """
        neutral = np.array(flame, np.float32)
        neutral[:, ROTATION] = _IDENTITY_6D
        neutral[:, TRANSLATION] = 0.0
        neutral[:, SCALE] = 1.0
        return self.vertices_xyz_px(neutral)

    @staticmethod
    def rotations(flame: np.ndarray) -> np.ndarray:
        """Return (N, 3, 3) rotations of (N, 413) parameters, FLAME frame to image axes."""
        six = torch.as_tensor(np.asarray(flame, np.float32)[:, ROTATION])
        return matrix_from_6d(six).numpy()

    @classmethod
    def euler_deg(cls, flame: np.ndarray) -> np.ndarray:
        """Return (N, 3) pitch, yaw and roll of (N, 413) parameters, degrees."""
        return euler_deg_from_matrix(torch.as_tensor(cls.rotations(flame))).numpy()

    @staticmethod
    def _run(function, flame: np.ndarray, count: int) -> np.ndarray:  # type: ignore[no-untyped-def]
        parts = [np.zeros((0, count, 3), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(flame), _CHUNK):
                chunk = torch.as_tensor(np.asarray(flame[start : start + _CHUNK], np.float32))
                parts.append(function(chunk).numpy())
        return np.concatenate(parts)


def region_faces(head_model: HeadModel, region: str) -> np.ndarray:
    """Return faces with all corners in a region, numbered within the region; (F, 3) int32."""
    indices = head_model.region(region)
    number = np.zeros(len(head_model.v_template), np.int32)
    number[indices] = np.arange(len(indices), dtype=np.int32)
    return np.ascontiguousarray(number[head_model.faces_of(region)])
