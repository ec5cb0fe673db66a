"""The head model as data: template, bases, joints, regions, landmarks, mirror maps; one npz."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.records.arrays import UnreadableArrays, read_arrays
from ml.records.atomic import write_bytes

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.int64]

NUM_VERTICES = 5023
NUM_FACES = 9976
NUM_JOINTS = 5
JAW_JOINT = 2
PARENTS = (-1, 0, 1, 1, 1)
"""Joints: 0 global, 1 neck, 2 jaw, 3 left eye, 4 right eye."""
ATTRIBUTES = (
    "skin", "lips", "brow", "scalp", "sclera", "iris", "pupil", "teeth", "mouth_interior",
    "nostril", "eyelid", "ear",
)  # fmt: skip
"""Per-vertex weights 0..1 that a renderer may colour by."""

# (name, trailing shape; None where the length is free)
_SHAPES: dict[str, tuple[int | None, ...]] = {
    "v_template": (NUM_VERTICES, 3),
    "faces": (NUM_FACES, 3),
    "shapedirs": (NUM_VERTICES, 3, 400),
    "posedirs": (NUM_VERTICES, 3, 36),
    "J_regressor": (NUM_JOINTS, NUM_VERTICES),
    "weights": (NUM_VERTICES, NUM_JOINTS),
    "landmark_faces": (68,),
    "landmark_barycentric": (68, 3),
    "mirror_vertices": (NUM_VERTICES,),
}
_INDEX_LIMITS = {
    "faces": NUM_VERTICES,
    "mirror_vertices": NUM_VERTICES,
    "landmark_faces": NUM_FACES,
}
_TEXTS = ("source", "shape_names", "expression_names")
_FORMAT = "vggheads head model 1"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A FLAME-like linear head model. FLAME frame: metres, y up, z to the viewer.

    Attributes:
        v_template: (5023, 3) float32, m.
        faces: (9976, 3) int32, anticlockwise from outside.
        shapedirs: (5023, 3, 400) float32, m per unit coefficient: 300 shape, then 100 expression.
        posedirs: (5023, 3, 36) float32, m per entry of [R - I] of joints 1 to 4, row-major.
        J_regressor: (5, 5023) float32, rows sum to 1.
        weights: (5023, 5) float32 skinning weights, rows sum to 1.
        landmark_faces: (68,) int32 face of each landmark, iBUG order.
        landmark_barycentric: (68, 3) float32.
        mirror_vertices: (5023,) int32, each vertex's mirror image.
        mirror_shape: (300,) signs or (300, 300) matrix that takes row vectors of shape coefficients
            to those of the mirrored head.
        mirror_expression: (100,) or (100, 100), likewise.
        regions: name -> sorted int32 vertex indices.
        attributes: name -> (5023,) float32 weight, 0..1, names of ATTRIBUTES; empty if unknown.
        source: where the model comes from, one line.
        shape_names: names of the first shape coefficients, where they have any.
        expression_names: likewise for expression.
    """

    v_template: FloatArray
    faces: NDArray[np.int32]
    shapedirs: FloatArray
    posedirs: FloatArray
    J_regressor: FloatArray
    weights: FloatArray
    landmark_faces: NDArray[np.int32]
    landmark_barycentric: FloatArray
    mirror_vertices: NDArray[np.int32]
    mirror_shape: FloatArray
    mirror_expression: FloatArray
    regions: dict[str, NDArray[np.int32]]
    attributes: dict[str, FloatArray] = field(default_factory=dict)
    source: str = ""
    shape_names: tuple[str, ...] = ()
    expression_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check shapes, index ranges and finiteness once.

        Raises:
            ValueError: an array does not fit.
        """
        for name, wanted in _SHAPES.items():
            array = getattr(self, name)
            if array.shape != wanted:
                raise ValueError(f"head model: {name} must be {wanted}, got {array.shape}")
            if array.dtype.kind not in "iuf":
                raise ValueError(f"head model: {name} must be numbers, got {array.dtype}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"head model: {name} contains NaN or infinity")
        for name, size in (("mirror_shape", 300), ("mirror_expression", 100)):
            array = getattr(self, name)
            if array.shape not in ((size,), (size, size)):
                raise ValueError(
                    f"head model: {name} must be ({size},) or ({size}, {size}), got {array.shape}"
                )
        for name, limit in _INDEX_LIMITS.items():
            array = getattr(self, name)
            if array.min() < 0 or array.max() >= limit:
                raise ValueError(
                    f"head model: {name} must lie in 0..{limit - 1}, "
                    f"got {array.min()}..{array.max()}"
                )
        if "head" not in self.regions or "all" not in self.regions:
            raise ValueError(
                f"head model: regions must have 'all' and 'head', got {sorted(self.regions)}"
            )
        for name, index in self.regions.items():
            plausible = index.ndim == 1 and len(index) > 0 and index.dtype.kind in "iu"
            if not plausible or index.min() < 0 or index.max() >= NUM_VERTICES:
                raise ValueError(f"head model: region {name!r} is empty or out of range")
        for name, value in self.attributes.items():
            if value.shape != (NUM_VERTICES,) or value.dtype.kind not in "biuf":
                raise ValueError(
                    f"head model: attribute {name!r} must be ({NUM_VERTICES},) numbers, got "
                    f"{value.shape} {value.dtype}"
                )

    @property
    def parents(self) -> tuple[int, ...]:
        """Parent of each joint, -1 for the root."""
        return PARENTS

    @property
    def kintree_table(self) -> IndexArray:
        """(2, 5) parents and joints, as FLAME's file stores them."""
        return np.array([PARENTS, range(NUM_JOINTS)], dtype=np.int64)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that shapes a head: 64 hexadecimal digits."""
        digest = hashlib.sha256(_FORMAT.encode())
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def faces_of(self, region: str) -> NDArray[np.int32]:
        """Return faces with all corners in a region.

        Args:
            region: name of the region.

        Returns:
            (F, 3) int32 vertex indices of the whole mesh.

        Raises:
            KeyError: there is no such region.
        """
        inside = np.zeros(len(self.v_template), dtype=bool)
        inside[self.region(region)] = True
        return self.faces[inside[self.faces].all(axis=1)]

    def region(self, name: str) -> NDArray[np.int32]:
        """Return vertex indices of a region.

        Args:
            name: one of `regions`.

        Returns:
            (N,) int32, sorted.

        Raises:
            KeyError: there is no such region; the message lists those there are.
        """
        if name not in self.regions:
            raise KeyError(
                f"head model: no region {name!r}; there are {', '.join(sorted(self.regions))}"
            )
        return self.regions[name]

    def save(self, path: Path) -> None:
        """Write the npz: equal models give equal bytes, no pickle inside.

        Args:
            path: the file, written atomically.
        """
        arrays = self._arrays()
        for key in _TEXTS:
            value = getattr(self, key)
            text = value if isinstance(value, str) else "\n".join(value)
            arrays[f"text_{key}"] = np.frombuffer(text.encode(), dtype=np.uint8)
        arrays["format"] = np.frombuffer(_FORMAT.encode(), dtype=np.uint8)
        write_bytes(Path(path), _npz_bytes(arrays))

    @classmethod
    def load(cls, path: Path) -> HeadModel:
        """Read what :meth:`save` wrote.

        Args:
            path: an npz file.

        Returns:
            the model.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, not a head model, or an array does not fit.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"head model: no file {path}; run the stage head_model first")
        try:
            arrays = read_arrays(path)
        except UnreadableArrays as error:
            raise ValueError(f"head model: {path} is damaged or no npz file: {error}") from error
        if bytes(arrays.pop("format", np.zeros(0, np.uint8))).decode(errors="replace") != _FORMAT:
            raise ValueError(f"head model: {path} is not a {_FORMAT!r} file")
        texts = {k: bytes(arrays.pop(f"text_{k}", b"")).decode(errors="replace") for k in _TEXTS}
        groups: dict[str, dict[str, NDArray]] = {"regions": {}, "attributes": {}}
        plain: dict[str, Any] = {}
        for name, array in arrays.items():
            group, _, key = name.partition("/")
            if key:
                groups.setdefault(group, {})[key] = array
            else:
                plain[name] = array
        wanted = {f.name for f in fields(cls)} - {"regions", "attributes", *texts}
        if set(plain) != wanted or set(groups) != {"regions", "attributes"}:
            missing, extra = sorted(wanted - set(plain)), sorted(set(plain) - wanted)
            raise ValueError(f"head model: {path} is missing {missing} and has unknown {extra}")
        return cls(
            **plain,
            regions=groups["regions"],
            attributes=groups["attributes"],
            source=texts["source"],
            shape_names=_lines(texts["shape_names"]),
            expression_names=_lines(texts["expression_names"]),
        )

    def _arrays(self) -> dict[str, NDArray]:
        arrays = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        arrays |= {f"regions/{k}": v for k, v in self.regions.items()}
        return arrays | {f"attributes/{k}": v for k, v in self.attributes.items()}


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


def _npz_bytes(arrays: dict[str, NDArray]) -> bytes:
    """Return an npz archive without time stamps, names sorted.

    Stored, not deflated: the bytes depend on no zlib version, and float32 bases hardly shrink.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(
                content, np.ascontiguousarray(arrays[name]), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content.getvalue())
    return buffer.getvalue()
