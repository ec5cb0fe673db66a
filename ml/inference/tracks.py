"""Heads in a video: tracks of persons, one shape per person, and smoothed poses.

ByteTrack assigns heads to tracks, from boxes and times. A track's shape is the mean over the
frames so far, as a skull does not change; its pose is smoothed over time, with position and size
relative to the box, so that a moving head does not lag. Nothing of a frame waits
for later ones, so that cameras and streams can be followed too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml.flame.geometry import HeadGeometry
from ml.flame.params import EXPRESSION, JAW, ROTATION, SCALE, SHAPE, TRANSLATION
from ml.imaging.boxes import box_area
from ml.inference.results import PredictionResult
from ml.records.heads import Heads

if TYPE_CHECKING:
    from trackers import ByteTrackTracker

UNKNOWN: Final = -1
"""Number of a head that belongs to no track yet: one that is seen for the first time."""
SMOOTHING_S: Final = 0.1
"""Time constant of the smoothing: a change has come by 63 % after so long."""
_LOST_S: Final = 1.0
"""So long a person may be hidden and is still the same."""
_RATE: Final = 25.0
_MOVING: Final = (EXPRESSION, JAW, ROTATION, TRANSLATION, SCALE)
_JUMP_DEG: Final = 60.0
"""Turned so far between two frames, a head is another estimate and no movement to smooth."""


@dataclass
class _Track:
    """State of one person's track; the parameters are in the frame of the box."""

    shape_sum: np.ndarray
    weight: float
    flame: np.ndarray
    time_s: float


class HeadTracks:
    """Follows heads from frame to frame of one film, camera or stream."""

    def __init__(self, smoothing_s: float = SMOOTHING_S) -> None:
        """Begin without any track.

        Args:
            smoothing_s: time constant of the smoothing, seconds; 0 disables it.

        Raises:
            ValueError: the time is negative.
        """
        if not smoothing_s >= 0:
            raise ValueError(f"tracks: smoothing_s: expected at least 0, got {smoothing_s}")
        self._smoothing_s = smoothing_s
        self._tracker: ByteTrackTracker = _new_tracker()
        self._tracks: dict[int, _Track] = {}
        self._frames = 0

    def follow(self, results: Iterable[PredictionResult]) -> Iterator[PredictionResult]:
        """Give numbers to the heads of a film, and make each track's shape one and its pose smooth.

        Args:
            results: of consecutive frames, in order.

        Yields:
            The same frames with `tracks`; heads without parameters keep none.
        """
        for result in results:
            time_s = self._frames / _RATE if result.time_s is None else result.time_s
            self._frames += 1
            heads = result.heads.raw
            numbers = self._numbers(heads, time_s)
            flame = heads.flame.copy()
            for index, number in enumerate(numbers):
                if number != UNKNOWN and np.isfinite(flame[index]).all():
                    box, score = heads.boxes_xyxy[index], float(heads.scores[index])
                    inside = _into_box(flame[index], box)
                    smooth = self._smoothed(int(number), inside, score, time_s)
                    flame[index] = _out_of_box(smooth, box)
            yield result.replaced(Heads(heads.boxes_xyxy, heads.scores, flame), numbers)

    def _numbers(self, heads: Heads, time_s: float) -> np.ndarray:
        """Return (N,) the track of each head."""
        import supervision as sv

        found: Any = self._tracker.update(
            sv.Detections(
                xyxy=heads.boxes_xyxy.astype(np.float64),
                confidence=heads.scores.astype(np.float64),
                data={"index": np.arange(len(heads))},
            ),
            timestamp=time_s,
        )
        numbers = np.full(len(heads), UNKNOWN, np.int64)
        if len(found):
            numbers[found.data["index"]] = found.tracker_id
        return numbers

    def _smoothed(self, number: int, flame: np.ndarray, score: float, time_s: float) -> np.ndarray:
        """Return (413,) parameters with the track's shape and a smoothed pose."""
        track = self._tracks.get(number)
        if track is None:
            track = _Track(np.zeros(SHAPE.stop), 0.0, flame, time_s)
            self._tracks[number] = track
        track.shape_sum = track.shape_sum + score * flame[SHAPE]
        track.weight += score
        smooth = flame.copy()
        smooth[SHAPE] = track.shape_sum / track.weight
        passed = time_s - track.time_s
        if 0 < passed <= _LOST_S and self._smoothing_s and not _jumped(track.flame, flame):
            new = 1.0 - np.exp(-passed / self._smoothing_s)
            for part in _MOVING:
                smooth[part] = new * flame[part] + (1.0 - new) * track.flame[part]
        track.flame, track.time_s = smooth, time_s
        return smooth


def _into_box(flame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return parameters whose place is relative to the box's middle, in units of its size."""
    size, middle = _frame(box)
    moved = flame.astype(np.float64)
    moved[TRANSLATION] = (moved[TRANSLATION] - middle) / size
    moved[SCALE] /= size
    return moved


def _out_of_box(flame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return parameters in image px, the reverse of `_into_box`."""
    size, middle = _frame(box)
    moved = flame.copy()
    moved[TRANSLATION] = moved[TRANSLATION] * size + middle
    moved[SCALE] *= size
    return moved


def _frame(box: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a box's size, px, and its middle, (3,) px."""
    size = float(np.sqrt(box_area(box[None].astype(np.float64))[0]))
    return size, np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 0.0])


def _jumped(before: np.ndarray, now: np.ndarray) -> bool:
    one, other = HeadGeometry.rotations(np.stack([before, now]).astype(np.float32))
    cosine = (np.trace(one @ other.T) - 1.0) / 2.0
    return bool(cosine < np.cos(np.radians(_JUMP_DEG)))


def _new_tracker() -> ByteTrackTracker:
    try:
        from trackers import ByteTrackTracker
    except ModuleNotFoundError as error:
        raise ValueError(
            f"tracks need the package {error.name}: pip install 'vggheads[tracks]', and then "
            "`pip install --no-deps trackers`, which would bring a second OpenCV otherwise"
        ) from error
    # Heads under the operating score do not come here, so each may begin a track, at once.
    return ByteTrackTracker(
        lost_track_buffer=round(_LOST_S * _RATE),
        frame_rate=_RATE,
        track_activation_threshold=0.0,
        high_conf_det_threshold=0.5,
        minimum_consecutive_frames=1,
    )
