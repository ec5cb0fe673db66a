"""Faces that must not appear: embeddings of them, and the search for their likes.

Source: the paper removes images whose faces resemble persons of Celeb-A. The index stays on the
machine that made it: nothing here or elsewhere writes it into an export.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ml.box_detection.base import Image
from ml.box_detection.face_models import FaceModelName, FaceModelSettings, load_face_model
from ml.filtering.calibration import Calibration
from ml.filtering.embedding import FaceReader, OnnxEmbedder, SFaceEmbedder
from ml.filtering.rules import Finding
from ml.imaging.io import UnreadableImage, decode_image
from ml.records import reasons
from ml.records.arrays import UnreadableArrays, read_arrays
from ml.records.atomic import write_bytes
from ml.records.config import StageConfig
from ml.records.exclusions import Exclusions
from ml.records.limits import MAX_INDEX_BYTES, brief
from ml.records.models import ModelFile
from ml.records.progress import progress

logger = logging.getLogger(__name__)

INDEX_FORMAT: Final = "vggheads-identity-index/1"
_FAISS_FROM = 200_000
"""From this number of entries on, FAISS is used if installed; below, a matrix product is faster."""
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class IdentityError(ValueError):
    """An index cannot be used with this configuration; the message gives the cause."""


class IdentityConfig(StageConfig):
    """Faces that must not appear; without an index the check is skipped, which is recorded."""

    index: str = ""
    """File written by `vggheads identity-index`, relative to the project; empty: no identity
    check."""
    source_asset: str | None = None
    """Source of the index's faces in the asset register, such as celeba."""
    detector: FaceModelName = "yunet"
    """Face detector that finds and aligns the faces."""
    detector_model: ModelFile | None = None
    """Its ONNX file."""
    embedder: Literal["sface", "arcface"] = "sface"
    """`sface` through OpenCV; `arcface`: any ONNX network of this family through onnxruntime."""
    embedder_model: ModelFile | None = None
    """Its ONNX file."""
    threshold: float | None = Field(default=None, gt=-1, lt=1)
    """Cosine similarity above which two faces are considered the same person; default: the
    threshold that `vggheads identity-index` calibrated on the index's own faces. Thresholds do not
    transfer between networks, detectors or indexes."""
    detector_threshold: float = Field(default=0.6, gt=0, lt=1)
    """Minimum score of a face."""
    input_size: int = Field(default=640, ge=64, le=10**9)
    """Longer side of the detector's input image, px."""
    min_face_px: float = Field(default=20.0, ge=0, le=1e6)
    """Smaller faces are not compared."""
    batch_size: int = Field(default=16, ge=1, le=10**9)
    """Models of onnxruntime: images or faces in one forward pass, if the file's batch axis is not
    fixed."""

    @model_validator(mode="after")
    def _files_named(self) -> IdentityConfig:
        if self.index and (self.detector_model is None or self.embedder_model is None):
            raise ValueError("index needs detector_model and embedder_model")
        if self.index and not self.source_asset:
            raise ValueError(
                "index needs source_asset: what it was made of decides what results may be used for"
            )
        return self


@dataclass(frozen=True)
class IdentityIndex:
    """Embeddings of the faces that must not appear.

    Attributes:
        embeddings: (N, D) float32 of length 1.
        embedder: name and hash of their network.
        sources: (N,) sha256 of the image each came from; no name of a person is kept.
        calibration: the threshold calibrated on its own faces; None if that failed.
    """

    embeddings: NDArray[np.float32]
    embedder: str
    sources: NDArray[np.str_]
    calibration: Calibration | None = None

    def best(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the highest cosine similarity of each query with any entry.

        Args:
            queries: (Q, D) float32 of length 1.

        Returns:
            (Q,) float32.
        """
        return self.nearest(queries)[0]

    def nearest(
        self, queries: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the highest cosine similarity of each query with any entry, and which that is.

        Args:
            queries: (Q, D) float32 of length 1.

        Returns:
            (Q,) float32 and (Q,) int64.
        """
        if not len(queries):
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        search = self._faiss() if len(self.embeddings) >= _FAISS_FROM else None
        if search is not None:
            found, rows = search.search(np.ascontiguousarray(queries, np.float32), 1)
            return np.asarray(found[:, 0], np.float32), np.asarray(rows[:, 0], np.int64)
        alike = queries @ self.embeddings.T
        return np.asarray(alike.max(axis=1), np.float32), alike.argmax(axis=1).astype(np.int64)

    def _faiss(self) -> Any:
        try:
            import faiss
        except ImportError:
            return None
        index = faiss.IndexFlatIP(self.embeddings.shape[1])
        index.add(np.ascontiguousarray(self.embeddings, np.float32))
        return index

    def save(self, path: Path) -> None:
        """Write the index; the same faces give the same bytes.

        Args:
            path: the file; it must not be shared.
        """
        out = io.BytesIO()
        np.savez(
            out,
            format=np.array(INDEX_FORMAT),
            embedder=np.array(self.embedder),
            embeddings=self.embeddings,
            sources=self.sources,
            calibration=np.array(self.calibration.to_json() if self.calibration else ""),
        )
        write_bytes(path, out.getvalue())

    @staticmethod
    def load(path: Path) -> IdentityIndex:
        """Read what `save` wrote.

        Args:
            path: the file.

        Returns:
            The index.

        Raises:
            IdentityError: it is missing or no index.
        """
        if not path.is_file():
            raise IdentityError(
                f"identity index: no file {path}; make it with `vggheads identity-index FOLDER`"
            )
        try:
            stored = read_arrays(path, max_array_bytes=MAX_INDEX_BYTES)
            kind = str(stored["format"])
            if kind != INDEX_FORMAT:
                raise IdentityError(f"{path}: format {brief(kind)}, expected {INDEX_FORMAT!r}")
            # Indices that were made before thresholds were measured have no such entry.
            text = str(stored["calibration"]) if "calibration" in stored else ""
            calibration = Calibration.from_json(text) if text else None
            return IdentityIndex(
                stored["embeddings"], str(stored["embedder"]), stored["sources"], calibration
            )
        except IdentityError:
            raise
        except (UnreadableArrays, ValueError, KeyError, TypeError, IndexError) as error:
            raise IdentityError(f"{path}: not an identity index: {error}") from error


class IdentityScreen:
    """Rejects images with a face that resembles one in the index."""

    def __init__(self, reader: FaceReader, index: IdentityIndex, threshold: float) -> None:
        """Put reader and index together.

        Args:
            reader: finds and embeds faces.
            index: the faces that must not appear.
            threshold: similarity from which two are one person.

        Raises:
            IdentityError: the index was made with another embedder.
        """
        if index.embedder != reader.embedder.name:
            raise IdentityError(
                f"identity index: it was made with {index.embedder}, but {reader.embedder.name} is "
                "configured; vectors of different networks cannot be compared, make the index again"
            )
        self._reader, self._index, self._threshold = reader, index, threshold
        self.name = reader.embedder.name

    def screen(self, images: Sequence[Image]) -> list[Finding | None]:
        """Judge images.

        Args:
            images: (H, W, 3) uint8 RGB each.

        Returns:
            A finding for each image with a known face; it states the similarity, not the person.
        """
        found: list[Finding | None] = []
        for faces in self._reader.read_all(images):
            likeness = self._index.best(faces)
            best = float(likeness.max(initial=-1))
            detail = (
                f"{int((likeness >= self._threshold).sum())} of {len(likeness)} faces are known, "
                f"similarity {best:.3f} (from {self._threshold:g})"
            )
            found.append(
                Finding(reasons.KNOWN_IDENTITY, detail) if best >= self._threshold else None
            )
        return found


def threshold_of(config: IdentityConfig, index: IdentityIndex) -> float:
    """Return the similarity from which two faces are taken for one person.

    Args:
        config: may state one; it is used, with a warning that its effect was not measured.
        index: may have been calibrated.

    Raises:
        IdentityError: neither states one.
    """
    measured = index.calibration
    if config.threshold is None:
        if measured is None:
            raise IdentityError(
                "identity index: it has no calibration, and filtered_dataset.identity.threshold "
                "states none; make it again with `vggheads identity-index FOLDER`, with a folder "
                "for each person or --identities FILE, so that a threshold can be measured"
            )
        return measured.threshold
    if measured is None:
        logger.warning(
            "filtered_dataset.identity.threshold is %g, and nothing was measured on this index: "
            "its false match rate and false non-match rate are unknown",
            config.threshold,
        )
    elif abs(config.threshold - measured.threshold) > 1e-6:
        logger.warning(
            "filtered_dataset.identity.threshold is %g; measured on this index: %s",
            config.threshold,
            measured.describe(),
        )
    return config.threshold


def load_face_reader(config: IdentityConfig, root: Path, device: str = "cpu") -> FaceReader:
    """Return the configured face detector and embedder.

    Args:
        config: which ones.
        root: the project folder.
        device: where onnxruntime computes.

    Returns:
        The reader.

    Raises:
        IdentityError: a model is not configured.
        ModelError: a file is missing or has another hash than stated.
        FaceModelError: a file is of another kind.
    """
    if config.detector_model is None or config.embedder_model is None:
        raise IdentityError(
            "filtered_dataset.identity: detector_model and embedder_model must be set, each {path, "
            "sha256, asset}"
        )
    settings = FaceModelSettings(
        config.detector_threshold, 0.4, config.input_size, config.batch_size, device
    )
    file = Path(config.detector_model.resolve(root).location)
    detector = load_face_model(config.detector, file, settings)
    model = config.embedder_model.resolve(root)
    embedder = (
        SFaceEmbedder(model)
        if config.embedder == "sface"
        else OnnxEmbedder(model, config.batch_size, device)
    )
    return FaceReader(detector, embedder, config.min_face_px)


def build_index(
    folder: Path,
    reader: FaceReader,
    exclusions: Exclusions,
    identities: Mapping[str, str] | None = None,
) -> tuple[IdentityIndex, NDArray[np.int64]]:
    """Embed the best face of every image in a folder.

    Args:
        folder: images, also in subfolders; nothing of their names is kept.
        reader: finds and embeds faces.
        exclusions: receives images that cannot be read or show no face.
        identities: image name -> person; without it images of one subfolder are of one person.

    Returns:
        The index, and for each entry the number of its person, -1 if unknown.

    Raises:
        IdentityError: no face is found in any image.
    """
    rows: list[NDArray[np.float32]] = []
    sources: list[str] = []
    people: dict[str, int] = {}
    numbers: list[int] = []
    for path in progress(list(iter_images(folder)), "identity index"):
        try:
            data = path.read_bytes()
            faces = reader.read(decode_image(data))
        except (OSError, UnreadableImage) as error:
            exclusions.add(path.name, reasons.DAMAGED_IMAGE, str(error))
            continue
        if not len(faces):
            exclusions.add(path.name, reasons.NO_FACE, f"{path.name}: no face of at least "
                           f"{reader.min_face_px:g} px")  # fmt: skip
            continue
        rows.append(faces[0])
        sources.append(hashlib.sha256(data).hexdigest())
        person = _person(path, folder, identities)
        numbers.append(-1 if person is None else people.setdefault(person, len(people)))
    if not rows:
        raise IdentityError(f"identity index: no face in the {len(exclusions)} images of {folder}")
    index = IdentityIndex(np.stack(rows), reader.embedder.name, np.array(sources))
    return index, np.array(numbers, np.int64)


def _person(path: Path, folder: Path, identities: Mapping[str, str] | None) -> str | None:
    if identities is not None:
        return identities.get(path.name)
    return None if path.parent == folder else str(path.parent.relative_to(folder))


def iter_images(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, in order.

    Args:
        folder: the folder.

    Raises:
        IdentityError: it is none.
    """
    if not folder.is_dir():
        raise IdentityError(f"identity index: {folder} is no folder of images")
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES and p.is_file()
    )
