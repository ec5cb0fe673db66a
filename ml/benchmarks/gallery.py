"""A page of images for each set: the best, the median, the worst, and failures by kind.

An outcome is a few numbers per image, so a whole set fits; images are read again only for those
that are shown.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ml.benchmarks.metrics_pose import PosePairs, frame_rotation
from ml.benchmarks.samples import FaceBoxes
from ml.evaluation.metrics import geodesic_deg
from ml.imaging.boxes import box_area
from ml.imaging.io import UnreadableImage, encode_jpeg
from ml.imaging.matching import match_heads
from ml.records.atomic import write_bytes, write_text
from ml.records.heads import OPERATING_SCORE
from ml.records.templates import template_environment

TEMPLATES = Path(__file__).parent / "templates"
KINDS: Mapping[str, str] = {
    "missed": "A head of the ground truth that was missed.",
    "false": "A detection without a head.",
    "wrong rotation": "A rotation error over 30 degrees, even after alignment of the two frames.",
    "wrong frame": "A rotation error over 10 degrees that alignment of the frames at least halves.",
    "tiny": "A failure on a head under 20 px.",
    "occluded": "A failure on a partly occluded head.",
    "profile": "A failure on a head that faces 60 to 120 degrees away from the camera.",
    "back": "A failure on a head that faces more than 120 degrees away from the camera.",
}
"""Kind of failure -> description, in the order of the page."""
WRONG_DEG, FRAME_DEG = 30.0, 10.0
TINY_PX = 20.0
PROFILE_DEG, BACK_DEG = 60.0, 120.0
PER_SECTION = 12
_SIDE_PX = 420
_TRUE_COLOUR = (80, 230, 90)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one image.

    Attributes:
        sample_id: the image's id.
        error: sort key of the images; NaN where nothing was found.
        kinds: keys of `KINDS` that apply.
        caption: the error in words and units.
    """

    sample_id: str
    error: float
    kinds: tuple[str, ...]
    caption: str

    @property
    def words(self) -> tuple[str, ...]:
        """Return the image's caption: the error, and the kinds that the text does not mention."""
        said = self.caption.replace(",", "").split()
        kinds = [kind for kind in self.kinds if kind not in said]
        return (self.caption, ", ".join(kinds)) if kinds else (self.caption,)


@dataclass(frozen=True)
class Section:
    """A part of the page: its heading, a sentence, how many images it has in all, those shown."""

    title: str
    text: str
    total: int
    outcomes: tuple[Outcome, ...]


def pose_outcomes(
    sample_ids: Sequence[str],
    pairs: PosePairs,
    sizes_px: np.ndarray | None = None,
    occluded: np.ndarray | None = None,
) -> list[Outcome]:
    """Return outcomes of a set with one head an image.

    Args:
        sample_ids: ids, one per head.
        pairs: true and predicted rotations.
        sizes_px: (N,) size of the true heads, NaN where unknown; unknown by default.
        occluded: (N,) bool; none by default.

    Returns:
        One outcome per head; its error is the angle between the rotations, degrees.
    """
    predicted, true = pairs.predicted_rotations, pairs.true_rotations
    plain = geodesic_deg(predicted, true)
    aligned = geodesic_deg(predicted @ frame_rotation(predicted, true), true)
    # From where the face looks: Euler angles call a head seen from behind yaw 0, pitch 180.
    turned = np.degrees(np.arccos(np.clip(-true[:, 2, 2], -1.0, 1.0)))
    sizes = np.full(len(plain), np.nan) if sizes_px is None else sizes_px
    hidden = np.zeros(len(plain), bool) if occluded is None else occluded
    missed = ~pairs.found
    failed = missed | (aligned > WRONG_DEG)
    flags = {
        "missed": missed,
        "wrong rotation": aligned > WRONG_DEG,
        "wrong frame": (plain > FRAME_DEG) & (aligned <= plain / 2),
        "tiny": failed & (sizes < TINY_PX),
        "occluded": failed & hidden,
        "profile": failed & (turned >= PROFILE_DEG) & (turned < BACK_DEG),
        "back": failed & (turned >= BACK_DEG),
    }
    return [
        Outcome(
            sample_id,
            float(plain[i]),
            tuple(kind for kind, applies in flags.items() if applies[i]),
            "missed" if missed[i] else f"{plain[i]:.1f} deg, {aligned[i]:.1f} aligned",
        )
        for i, sample_id in enumerate(sample_ids)
    ]


def box_outcome(
    sample_id: str, boxes_xyxy: np.ndarray, scores: np.ndarray, truth: FaceBoxes
) -> Outcome:
    """Return the outcome of an image with any number of faces.

    Args:
        sample_id: the image's id.
        boxes_xyxy: (P, 4) predictions, px.
        scores: (P,) confidences; those under `OPERATING_SCORE` are left out.
        truth: the faces.

    Returns:
        Its error is the number of missed faces and false hits over that of faces, at least one.
    """
    shown = scores >= OPERATING_SCORE
    matches = match_heads(boxes_xyxy[shown], scores[shown], truth.boxes_xyxy, truth.ignored)
    missed, false = matches.missed, len(matches.false_positives)
    faces = int((~truth.ignored).sum())
    occlusion = truth.attributes.get("occlusion")
    flags = {
        "missed": len(missed) > 0,
        "false": false > 0,
        "tiny": bool((np.sqrt(box_area(truth.boxes_xyxy[missed])) < TINY_PX).any()),
        "occluded": occlusion is not None and bool((np.asarray(occlusion)[missed] > 0).any()),
    }
    return Outcome(
        sample_id,
        (len(missed) + false) / max(faces, 1),
        tuple(kind for kind, applies in flags.items() if applies),
        f"{len(missed)} of {faces} missed, {false} false",
    )


def scan_outcomes(medians_mm: Mapping[str, float]) -> list[Outcome]:
    """Return outcomes of a set of scans.

    Args:
        medians_mm: image -> median distance of its scan, NaN where nothing was predicted.

    Returns:
        One outcome per image; its error is that distance.
    """
    return [
        Outcome(sample_id, value, ("missed",), "missed")
        if math.isnan(value)
        else Outcome(sample_id, value, (), f"median {value:.2f} mm")
        for sample_id, value in medians_mm.items()
    ]


def sections_of(outcomes: Iterable[Outcome], per_section: int = PER_SECTION) -> list[Section]:
    """Choose the images of the page.

    Args:
        outcomes: of all images.
        per_section: images in a section at most.

    Returns:
        Best, median, worst, and each kind of failure with its worst first; equal errors in order of
        the ids.
    """
    every = sorted(outcomes, key=lambda one: (_rank(one), one.sample_id))
    found = [one for one in every if not math.isnan(one.error)]
    middle = max(0, len(found) // 2 - per_section // 2)
    sections = [
        Section("Best", "The smallest errors.", len(found), tuple(found[:per_section])),
        Section(
            "Median",
            "Around the median error: typical results.",
            len(found),
            tuple(found[middle : middle + per_section]),
        ),
        Section("Worst", "The largest errors.", len(found), tuple(found[::-1][:per_section])),
    ]
    for kind, text in KINDS.items():
        members = [one for one in every[::-1] if kind in one.kinds]
        sections.append(
            Section(kind.capitalize(), text, len(members), tuple(members[:per_section]))
        )
    return sections


def _rank(outcome: Outcome) -> float:
    return math.inf if math.isnan(outcome.error) else outcome.error


def draw_truth(image_rgb: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """Draw true boxes in green on a copy of an image.

    Args:
        image_rgb: (H, W, 3) uint8.
        boxes_xyxy: (N, 4) px.

    Returns:
        (H, W, 3) uint8.
    """
    canvas = image_rgb.copy()
    thickness = max(1, round(min(canvas.shape[:2]) / 200))
    for box in boxes_xyxy:
        left, top, right, bottom = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (left, top), (right, bottom), _TRUE_COLOUR, thickness, cv2.LINE_AA)
    return canvas


def write_gallery(
    folder: Path,
    title: str,
    outcomes: Iterable[Outcome],
    draw: Callable[[str], np.ndarray],
    notes: Sequence[str] = (),
    per_section: int = PER_SECTION,
) -> Path:
    """Write the page of a set.

    Args:
        folder: receives `gallery.html` and its images.
        title: the set's and the model's name.
        outcomes: of all images.
        draw: image id to the image with what was found, (H, W, 3) uint8 RGB; called once for each
            image that is shown. `UnreadableImage` from it leaves a card without an image.
        notes: remarks for the reader.
        per_section: images in a section at most.

    Returns:
        The page.
    """
    sections = sections_of(outcomes, per_section)
    images: dict[str, str] = {}
    for section in sections:
        for outcome in section.outcomes:
            if outcome.sample_id not in images:
                images[outcome.sample_id] = _save(folder, outcome.sample_id, draw)
    environment = template_environment(TEMPLATES)
    page = environment.get_template("gallery.html.jinja").render(
        title=title, sections=sections, images=images, notes=list(notes)
    )
    path = folder / "gallery.html"
    write_text(path, page)
    return path


def _save(folder: Path, sample_id: str, draw: Callable[[str], np.ndarray]) -> str:
    """Write an image under a name that follows from its id, whatever signs that holds."""
    try:
        image = draw(sample_id)
    except UnreadableImage:
        return ""
    name = f"images/{hashlib.sha256(sample_id.encode()).hexdigest()[:20]}.jpg"
    write_bytes(folder / name, encode_jpeg(shrink(image)))
    return name


def shrink(image_rgb: np.ndarray) -> np.ndarray:
    """Return an image no larger than the page shows it, (H, W, 3) uint8."""
    ratio = _SIDE_PX / max(image_rgb.shape[:2])
    if ratio >= 1:
        return image_rgb
    size = (max(1, round(side * ratio)) for side in (image_rgb.shape[1], image_rgb.shape[0]))
    return cv2.resize(image_rgb, tuple(size), interpolation=cv2.INTER_AREA)
