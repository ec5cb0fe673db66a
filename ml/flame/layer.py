"""The differentiable head: coefficients and jaw to vertices.

Shapes: B heads, V vertices, K coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ml.flame.head_model import JAW_JOINT, NUM_VERTICES, HeadModel
from ml.flame.params import NUM_EXPRESSION, NUM_SHAPE, split
from ml.flame.projection import project_flame
from ml.flame.rotation import rodrigues, rodrigues_gradient

Z_OFFSET_M = 0.05
"""Moves the origin to the centre of the skull, about which heads rotate."""
_NUM_POSE = 9
_NUM_LEADING = 1 + _NUM_POSE
"""The template's coefficient, always 1, and the pose correctives' precede those of the
shape."""
_JAW_ROWS = slice(9, 18)


class _Skin(Function):
    """Shape, expression and jaw to vertices (B, 3, V), and back.

    One node with its gradient in closed form: automatic differentiation would keep copies of the
    mesh that the closed form does without.
    """

    @staticmethod
    def forward(ctx, shape, expression, jaw, mesh):  # type: ignore[no-untyped-def]
        batch, weight, moving = len(jaw), mesh.jaw_weight, mesh.moving  # (M,) weights, (M,) indices
        delta, jacobian = rodrigues(jaw)  # (B, 3, 3) R - I, and its derivative by the axis-angle
        ones = delta.new_ones(batch, 1)
        # (1 + 9 + K, B): the template's 1, the pose correctives' R - I, shape, expression
        coefficients = torch.cat([ones, delta.flatten(1), shape, expression], dim=1).T
        rows = _rows(shape.shape[1], expression.shape[1])
        # heads last: BLAS writes a result of 15,000 rows faster than one of 15,000 columns; which
        # layout of the table it reads faster differs for one head, a few and many
        by_vertex = mesh.basis.T if batch == 1 else mesh.basis_by_vertex
        flat = by_vertex[:, rows[0]] @ coefficients[: rows[0].stop]  # (3 V + 3, B)
        for more in rows[1:]:
            flat.addmm_(by_vertex[:, more], coefficients[rows[0].stop :])
        # transposed in pieces that fit the processor's cache
        pieces = [piece.T for piece in flat[:-3].split(2048)]
        points = torch.cat(pieces, dim=1).view(batch, 3, len(flat) // 3 - 1)
        # Skinning, of the vertices that the jaw moves alone: v += w (R - I) (v - joint), where the
        # joint is the table's last three rows.
        from_joint = points.gather(2, moving.expand(batch, 3, -1)).sub_(flat[-3:].T[:, :, None])
        points.index_add_(2, moving, (delta @ from_joint).mul_(weight))
        ctx.num_shape = shape.shape[1]
        tables = (mesh.basis[part] for part in rows)
        ctx.save_for_backward(from_joint, delta, jacobian, weight, moving, *tables)
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        # from_joint (B, 3, M)
        from_joint, delta, jacobian, weight, moving, *tables = ctx.saved_tensors
        batch, _, num_vertices = grad.shape  # (B, 3, V)
        # The gradient by the table's columns, all vertices and the joint, before one product with
        # the table gives that of every coefficient.
        flat = grad.new_empty(batch, 3 * num_vertices + 3)
        points = flat[:, :-3].view(batch, 3, num_vertices)
        points.copy_(grad)
        grad_moving = points.gather(2, moving.expand(batch, 3, -1)).mul_(weight)  # (B, 3, M)
        # A moving vertex passes its gradient on through w (R - I); the joint gets the opposite.
        grad_from_joint = delta.transpose(1, 2) @ grad_moving  # (B, 3, M)
        points.index_add_(2, moving, grad_from_joint)
        flat[:, -3:] = -grad_from_joint.sum(2)
        coefficients = torch.cat([table @ flat.T for table in tables]).T  # (B, 1 + 9 + K)
        # the template's 1 gets no gradient
        pose = coefficients[:, 1:_NUM_LEADING].reshape(batch, 3, 3)
        # R - I acts twice: through the pose correctives and through the skinning.
        grad_delta = torch.baddbmm(pose, grad_moving, from_joint.transpose(1, 2))  # (B, 3, 3)
        shape, expression = coefficients[:, _NUM_LEADING:].tensor_split([ctx.num_shape], dim=1)
        grad_jaw = rodrigues_gradient(grad_delta, delta, jacobian)
        return shape, expression, grad_jaw, None


def _rows(num_shape: int, num_expression: int) -> list[slice]:
    """Return the basis' rows of the leading coefficients, in as few slices as possible."""
    behind = _NUM_LEADING + NUM_SHAPE  # first row of the expression
    if num_shape == NUM_SHAPE:
        return [slice(0, behind + num_expression)]
    return [slice(0, _NUM_LEADING + num_shape), slice(behind, behind + num_expression)]


class _FoldedMesh(nn.Module):
    """Some vertices of a head model with all linear parts folded into one table."""

    basis: Tensor
    basis_by_vertex: Tensor
    jaw_weight: Tensor
    moving: Tensor

    def __init__(self, head_model: HeadModel, index: np.ndarray) -> None:
        super().__init__()
        offset = np.array([0.0, 0.0, Z_OFFSET_M])
        template = head_model.v_template.astype(np.float64)
        regressor = head_model.J_regressor[JAW_JOINT].astype(np.float64)
        # rows: x of all vertices, y, z, then the three coordinates of the jaw joint
        columns = _NUM_LEADING + NUM_SHAPE + NUM_EXPRESSION
        by_vertex = np.zeros((3 * len(index) + 3, columns), np.float32)
        mesh = by_vertex[:-3].reshape(3, len(index), -1)
        mesh[:, :, 0] = (template[index] + offset).T
        for axis in range(3):
            mesh[axis, :, 1:_NUM_LEADING] = head_model.posedirs[index, axis, _JAW_ROWS]
            mesh[axis, :, _NUM_LEADING:] = head_model.shapedirs[index, axis]
        by_vertex[-3:, 0] = regressor @ template + offset
        # joints are regressed before the pose correctives are added, from few of the vertices
        used = np.flatnonzero(regressor)
        moved = head_model.shapedirs[used].astype(np.float64)
        by_vertex[-3:, _NUM_LEADING:] = np.einsum("v,vck->ck", regressor[used], moved)
        weight = head_model.weights[index, JAW_JOINT]
        # Skinning leaves the others where they are: six of seven vertices have no jaw weight.
        moving = np.flatnonzero(weight > 0)
        for name, array in (
            ("basis", by_vertex.T),
            # the same numbers laid out for the product forward, 25 MB: with the other layout it
            # takes up to ten times as long for two to eight heads
            ("basis_by_vertex", by_vertex),
            ("jaw_weight", weight[moving]),
        ):
            tensor = torch.as_tensor(array, dtype=torch.float32).contiguous()
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("moving", torch.as_tensor(moving), persistent=False)

    def forward(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        dtype = self.basis.dtype
        inputs = (tensor.to(dtype) for tensor in (shape, expression, jaw))
        points = _Skin.apply(*inputs, self)
        return points.transpose(1, 2)  # (B, V, 3)


class FlameLayer(nn.Module):
    """FLAME with a moving jaw: linear blend skinning folded into one matrix product.

    Only the jaw moves (neck, eyes and global rotation are always zero here; the head's rotation is
    applied after the offset, by the projection). So all of FLAME is
    ``v = [1, R_jaw - I, shape, expression] basis`` and, for the vertices that have jaw weight w,
    ``v += w (R_jaw - I)(v - jaw joint)``. The joint is three more columns of the same product.
    `smplx.lbs` gives the same numbers and is the oracle of the tests.

    First derivatives only.

    Attributes:
        vertex_indices: (V,) the computed vertices, as indices into the whole mesh.
        faces: (F, 3) triangles with all corners among them, numbered within them.
    """

    vertex_indices: Tensor
    faces: Tensor
    landmark_barycentric: Tensor
    landmark_corners: Tensor

    def __init__(
        self, head_model: HeadModel, vertices: str | Sequence[int] | np.ndarray | None = None
    ) -> None:
        """Fold the bases.

        Args:
            head_model: the head model.
            vertices: vertices to compute: a region's name, indices in any order, None for all.

        Raises:
            KeyError: there is no such region.
            ValueError: indices are out of range, repeated or empty.
        """
        super().__init__()
        index = _indices(head_model, vertices)
        self._mesh = _FoldedMesh(head_model, index)
        # 68 landmarks lie on at most 204 vertices: a mesh of these is what `landmarks` computes.
        corners = head_model.faces[head_model.landmark_faces].reshape(-1)
        used, corner = np.unique(corners, return_inverse=True)
        self._landmark_mesh = _FoldedMesh(head_model, used.astype(np.int64))
        for name, array in (
            ("vertex_indices", index),
            ("faces", _faces_within(head_model, index)),
            ("landmark_corners", corner.reshape(68, 3)),
            ("landmark_barycentric", head_model.landmark_barycentric[:, :, None]),
        ):
            self.register_buffer(name, torch.as_tensor(array), persistent=False)

    @property
    def num_vertices(self) -> int:
        """Number of computed vertices."""
        return len(self.vertex_indices)

    def forward(self, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        """Return vertices of heads at rest pose but for the jaw.

        Always computed in the layer's own precision, float32, autocast or not.

        Args:
            shape: (B, <= 300) leading shape coefficients; the rest is zero.
            expression: (B, <= 100) leading expression coefficients; the rest is zero.
            jaw: (B, 3) axis-angle, rad.

        Returns:
            (B, V, 3) FLAME frame, metres, z + 0.05; a transposed view of (B, 3, V) memory.

        Raises:
            ValueError: a shape does not fit.
        """
        return self._run(self._mesh, shape, expression, jaw)

    @staticmethod
    def _run(mesh: nn.Module, shape: Tensor, expression: Tensor, jaw: Tensor) -> Tensor:
        _check(shape, expression, jaw)
        with torch.autocast(device_type=shape.device.type, enabled=False):
            return mesh(shape, expression, jaw)

    def vertices(self, flame: Tensor) -> Tensor:
        """Return vertices of 413 parameters, not yet rotated or projected.

        Args:
            flame: (B, 413).

        Returns:
            (B, V, 3) FLAME frame, metres, z + 0.05.

        Raises:
            ValueError: flame is not (B, 413).
        """
        parts = split(flame)
        return self(parts.shape, parts.expression, parts.jaw)

    def vertices_in_image(self, flame: Tensor) -> Tensor:
        """Return vertices of 413 parameters in the image.

        Args:
            flame: (B, 413) image frame.

        Returns:
            (B, V, 3) image frame, pixels, x right, y down, z away from the camera.

        Raises:
            ValueError: flame is not (B, 413).
        """
        return project_flame(self.vertices(flame), flame)

    def landmarks(self, flame: Tensor) -> Tensor:
        """Return the 68 landmarks of 413 parameters, not yet rotated or projected.

        Args:
            flame: (B, 413).

        Returns:
            (B, 68, 3) FLAME frame, metres, z + 0.05, iBUG order.

        Raises:
            ValueError: flame is not (B, 413).
        """
        parts = split(flame)
        vertices = self._run(self._landmark_mesh, parts.shape, parts.expression, parts.jaw)
        # (B, 68, 3 corners, 3) -> (B, 68, 3)
        return (vertices[:, self.landmark_corners] * self.landmark_barycentric).sum(2)

    def landmarks_in_image(self, flame: Tensor) -> Tensor:
        """Return the 68 landmarks of 413 parameters in the image.

        Args:
            flame: (B, 413) image frame.

        Returns:
            (B, 68, 3) image frame, pixels, iBUG order.

        Raises:
            ValueError: flame is not (B, 413).
        """
        return project_flame(self.landmarks(flame), flame)


def _check(shape: Tensor, expression: Tensor, jaw: Tensor) -> None:
    for name, tensor, most in (
        ("shape", shape, NUM_SHAPE),
        ("expression", expression, NUM_EXPRESSION),
    ):
        if tensor.ndim != 2 or tensor.shape[1] > most:
            raise ValueError(
                f"FlameLayer: {name} must be (B, K) with K <= {most}, got {tuple(tensor.shape)}"
            )
    if jaw.ndim != 2 or jaw.shape[1] != 3:
        raise ValueError(f"FlameLayer: jaw must be (B, 3) axis-angle, got {tuple(jaw.shape)}")
    if not len(shape) == len(expression) == len(jaw):
        raise ValueError(
            f"FlameLayer: batch sizes differ: shape {len(shape)}, expression {len(expression)}, "
            f"jaw {len(jaw)}"
        )


def _indices(
    head_model: HeadModel, vertices: str | Sequence[int] | np.ndarray | None
) -> np.ndarray:
    if vertices is None:
        return np.arange(NUM_VERTICES)
    if isinstance(vertices, str):
        return head_model.region(vertices).astype(np.int64)
    index = np.asarray(vertices, dtype=np.int64).reshape(-1)
    if len(index) == 0 or index.min() < 0 or index.max() >= NUM_VERTICES:
        raise ValueError(
            f"FlameLayer: vertices must be indices in 0..{NUM_VERTICES - 1}, got {len(index)}"
            + (f" in {index.min()}..{index.max()}" if len(index) else "")
        )
    if len(np.unique(index)) != len(index):
        raise ValueError("FlameLayer: vertices must not repeat")
    return index


def _faces_within(head_model: HeadModel, index: np.ndarray) -> np.ndarray:
    # vertex of the whole mesh -> place in `index`
    number = np.full(NUM_VERTICES, -1, dtype=np.int64)
    number[index] = np.arange(len(index))
    faces = number[head_model.faces]
    return faces[(faces >= 0).all(axis=1)]
