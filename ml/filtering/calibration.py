"""From which similarity two faces are one person: measured on the index's own faces.

A threshold belongs to a network, a detector and an index: what one network calls alike is far apart
for another, and the more faces an index holds, the more often an unrelated person resembles one of
them. So nothing is taken over from elsewhere. Every face of a sample asks the index as a generated
one will: its best match among *other* persons is what a false match looks like, its best among
other images of its *own* person what a true one does.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ml.records.atomic import atomic_write
from ml.records.files import read_file
from ml.records.ids import sample_seed
from ml.records.limits import MAX_JSON_BYTES
from ml.records.progress import progress

TARGET: Final = 0.01
"""Accepted false match rate: the fraction of unrelated people that the filter removes."""
_QUERIES: Final = 20_000
_BATCH: Final = 256
_ENOUGH: Final = 3
"""So many false matches must be expected at the target, else its threshold is chance."""
_UNKNOWN: Final = -2.0


class CalibrationError(ValueError):
    """The faces do not determine a threshold; the message names what is missing."""


@dataclass(frozen=True)
class Calibration:
    """A measured threshold, stored with the index.

    Attributes:
        threshold: cosine similarity from which a face is taken for one of the index's persons.
        target: the requested false-match rate.
        false_match_rate: fraction of the faces whose best match among other persons reaches it.
        true_match_rate: fraction of the faces whose best match among other images of their own
            person reaches it; NaN if no person has two images.
        num_strangers: faces that measured the first rate.
        num_own: faces that measured the second.
        num_identities: persons.
    """

    threshold: float
    target: float
    false_match_rate: float
    true_match_rate: float
    num_strangers: int
    num_own: int
    num_identities: int

    def to_json(self) -> str:
        """Return the calibration as JSON; a rate that was not measured is null."""
        values = {k: None if math.isnan(v) else v for k, v in asdict(self).items()}
        return json.dumps(values, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Calibration:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is no calibration.
        """
        values = json.loads(text)
        try:
            values = {k: math.nan if v is None else v for k, v in values.items()}
            found = Calibration(**values)
            if not all(isinstance(v, int | float) for v in values.values()):
                raise ValueError("a value is no number")
            if not -1 <= found.threshold <= 1:
                raise ValueError(f"threshold {found.threshold} is no cosine")
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a calibration: {error}") from error
        return found

    def describe(self) -> str:
        """Return it in words."""
        own = (
            "no person has two images"
            if self.num_own == 0
            else f"{self.true_match_rate:.1%} of {self.num_own:,} faces find their own person"
        )
        return (
            f"threshold {self.threshold:.3f}: {self.false_match_rate:.2%} of "
            f"{self.num_strangers:,} faces are taken for another of {self.num_identities:,} "
            f"persons (asked for: {self.target:.2%}); {own}"
        )


@dataclass(frozen=True)
class Similarities:
    """Similarities among the faces of an index.

    Attributes:
        own: (M,) best similarity with another image of the same person.
        strangers: (N,) highest similarity with any other person.
        num_identities: persons.
    """

    own: NDArray[np.float32]
    strangers: NDArray[np.float32]
    num_identities: int


def measure(
    embeddings: NDArray[np.float32], identities: NDArray[np.int64], queries: int = _QUERIES
) -> Similarities:
    """Ask the index with its own faces.

    Args:
        embeddings: (N, D) of length 1.
        identities: (N,) number of the person; equal for images of one person.
        queries: most faces to ask with; drawn by their number alone.

    Returns:
        Best similarities.

    Raises:
        CalibrationError: all faces are of one person.
    """
    num_identities = len(np.unique(identities))
    if num_identities < 2:
        raise CalibrationError(
            f"identity calibration: {len(embeddings)} faces of {num_identities} person; faces of "
            "different persons are needed to see what a false match looks like"
        )
    order = sorted(range(len(embeddings)), key=lambda n: sample_seed(0, "calibration", str(n)))
    chosen = np.sort(np.array(order[:queries]))
    own, strangers = [], []
    for start in progress(range(0, len(chosen), _BATCH), "identity calibration"):
        rows = chosen[start : start + _BATCH]
        alike = embeddings[rows] @ embeddings.T
        same = identities[rows][:, None] == identities[None]
        strangers.append(np.where(same, _UNKNOWN, alike).max(axis=1))
        alike[np.arange(len(rows)), rows] = _UNKNOWN
        own.append(np.where(same, alike, _UNKNOWN).max(axis=1))
    best_own = np.concatenate(own)
    return Similarities(
        best_own[best_own > _UNKNOWN].astype(np.float32),
        np.concatenate(strangers).astype(np.float32),
        num_identities,
    )


def calibrate(similarities: Similarities, target: float = TARGET) -> Calibration:
    """Choose the lowest threshold whose false-match rate is at most the target.

    Args:
        similarities: from `measure`.
        target: accepted false match rate, > 0.

    Returns:
        The threshold and its rates.

    Raises:
        CalibrationError: there are too few faces for so small a target.
    """
    strangers = np.sort(similarities.strangers)[::-1]
    needed = math.ceil(_ENOUGH / target)
    if len(strangers) < needed:
        raise CalibrationError(
            f"identity calibration: {len(strangers)} faces cannot show a false-match rate of "
            f"{target:g}; it takes {needed}, or a target of {_ENOUGH / max(len(strangers), 1):.2g}"
        )
    allowed = math.floor(target * len(strangers))
    # Just above the first that may not match: equal ones must not match either.
    threshold = float(np.nextafter(strangers[allowed], np.float32(2), dtype=np.float32))
    own = similarities.own
    return Calibration(
        threshold=threshold,
        target=target,
        false_match_rate=float((strangers >= threshold).mean()),
        true_match_rate=float((own >= threshold).mean()) if len(own) else math.nan,
        num_strangers=len(strangers),
        num_own=len(own),
        num_identities=similarities.num_identities,
    )


def read_identities(path: Path) -> dict[str, str]:
    """Read which image shows whom, as CelebA's `identity_CelebA.txt` has it.

    Args:
        path: lines of an image's name and a person's.

    Returns:
        Image name -> person.

    Raises:
        CalibrationError: a line has not two words.
    """
    found: dict[str, str] = {}
    text = read_file(path, MAX_JSON_BYTES).decode("utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise CalibrationError(
                f"{path}:{number}: expected an image's name and a person's, got {line[:60]!r}"
            )
        found[words[0]] = words[1]
    return found


def plot(similarities: Similarities, calibration: Calibration, path: Path) -> None:
    """Draw the two histograms and the threshold between them.

    Args:
        similarities: from `measure`.
        calibration: from `calibrate`.
        path: PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    everything = np.concatenate([similarities.own, similarities.strangers])
    edges = np.linspace(float(everything.min()), max(float(everything.max()), -0.99), 60).tolist()
    for values, label, colour in (
        (similarities.strangers, "best among other persons", "#4477aa"),
        (similarities.own, "best among own other images", "#ee6677"),
    ):
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            axes.hist(values, edges, weights=weights, alpha=0.6, label=label, color=colour)
    text = f"threshold {calibration.threshold:.3f}"
    axes.axvline(calibration.threshold, color="#222222", linestyle="--", label=text)
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("fraction of faces")
    axes.set_title(
        f"false matches {calibration.false_match_rate:.2%}, "
        + (f"true {calibration.true_match_rate:.1%}" if calibration.num_own else "true not known"),
        fontsize="medium",
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
