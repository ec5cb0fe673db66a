"""Statistics of the dataset and of dropped samples: one tidy table and its plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ml.captions.scene import MONK_TONES, NO_SCENE, Scene
from ml.flame.geometry import HeadGeometry
from ml.flame.params import NUM_PARAMETERS
from ml.records.atomic import atomic_write, write_json, write_text
from ml.records.tables import stack

COLUMNS: Final = ("section", "name", "value")
DROP_STAGES: Final = ("poses", "captions", "images", "annotations", "filtered_dataset")
"""Stages that can drop samples, in the order of the pipeline."""

Row = tuple[str, str, float]
"""Section, name, value."""
_ANGLES: Final = ("yaw_deg", "pitch_deg", "roll_deg", "angle_from_frontal_deg")
_EDGES: Final[Mapping[str, tuple[int, ...]]] = {
    "head_height_px": (0, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024),
    **dict.fromkeys(_ANGLES[:3], tuple(range(-180, 181, 15))),
    "angle_from_frontal_deg": tuple(range(0, 181, 15)),
}
"""Section of a histogram -> the edges of its bins."""
_TITLES: Final = {
    "heads_per_image": "Heads per image",
    "head_height_px": "Head box height, px",
    "yaw_deg": "Yaw, degrees (positive: to the image's left)",
    "pitch_deg": "Pitch, degrees (negative: down)",
    "roll_deg": "Roll, degrees",
    "angle_from_frontal_deg": "Angle from frontal, degrees",
    "monk_tone": "Monk skin tone of the people shown",
    "drop_rate": "Fraction dropped by stage",
    "exclusion_reason": "Reasons for dropping",
}
_BAR_COLOUR: Final = "#3b6ea5"
# Matplotlib's version would otherwise be written into every PNG.
_PNG_METADATA: Final = {"Software": None}


def compute_statistics(
    images: pd.DataFrame,
    heads: pd.DataFrame,
    verdicts: pd.DataFrame,
    exclusions: pd.DataFrame,
    captions: pd.DataFrame,
) -> pd.DataFrame:
    """Return the statistics of a filtered dataset whose tables are in memory.

    Args:
        images: as `StatisticsCounter.add` takes them.
        heads: likewise.
        verdicts: likewise.
        exclusions: as `StatisticsCounter.table` takes them.
        captions: as `StatisticsCounter.add` takes them.

    Returns:
        As `StatisticsCounter.table`.

    Raises:
        ValueError: Verdicts name an image twice or one that does not exist.
    """
    counter = StatisticsCounter()
    counter.add(images, heads, verdicts, captions)
    return counter.table(exclusions)


class StatisticsCounter:
    """Counts a dataset piece by piece; keeps 12 bytes per head or image.

    The numbers are those of all pieces at once: nothing is averaged over pieces.
    """

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._num_images = self._num_verdicts = self._num_with_parameters = 0
        self._splits: Counter[str] = Counter()
        self._heads_per_image: Counter[int] = Counter()
        self._tones: Counter[int] = Counter()
        self._poses: list[np.ndarray] = []
        self._heights: list[np.ndarray] = []
        self._bins: dict[str, np.ndarray] = {
            name: np.zeros(len(edges) - 1, np.int64) for name, edges in _EDGES.items()
        }
        self._angle_sum = 0.0

    def add(
        self,
        images: pd.DataFrame,
        heads: pd.DataFrame,
        verdicts: pd.DataFrame,
        captions: pd.DataFrame,
    ) -> None:
        """Count a piece: all rows of some images.

        Args:
            images: Generated images, columns of `IMAGES`.
            heads: Their annotated heads, columns of `HEADS` at least; those of removed images are
                ignored.
            verdicts: One row per image that reached the filters, columns of `VERDICTS`.
            captions: Columns of `CAPTIONS`; its scenes hold the skin tones.

        Raises:
            ValueError: Verdicts name an image twice or one that does not exist.
        """
        _check_verdicts(images, verdicts)
        kept_ids = set(verdicts.loc[verdicts["keep"].astype(bool), "sample_id"])
        kept_images = images[images["sample_id"].isin(kept_ids)]
        kept_heads = heads[heads["sample_id"].isin(kept_ids)]
        self._num_images += len(images)
        self._num_verdicts += len(verdicts)
        self._splits.update(kept_images["split"].tolist())
        poses = pd.util.hash_array(kept_images["pose_id"].to_numpy(dtype=object))
        self._poses.append(np.unique(poses))
        counts = kept_heads.groupby("sample_id").size().reindex(sorted(kept_ids), fill_value=0)
        self._heads_per_image.update(int(count) for count in counts)
        self._tones.update(
            person.skin_tone
            for text in captions.loc[captions["sample_id"].isin(kept_ids), "scene"]
            if text != NO_SCENE
            for person in Scene.from_json(text).people
        )
        self._add_heads(kept_heads)

    def _add_heads(self, heads: pd.DataFrame) -> None:
        """Count heights, Euler angles, and angles from a head that looks into the camera."""
        heights = stack(heads["bbox_xywh"]).reshape(-1, 4)[:, 3]
        self._heights.append(heights.astype(np.float32))
        flame = stack(heads.loc[heads["flame"].notna(), "flame"]).reshape(-1, NUM_PARAMETERS)
        self._num_with_parameters += len(flame)
        euler = HeadGeometry.euler_deg(flame) if len(flame) else np.zeros((0, 3))
        rotations = HeadGeometry.rotations(flame) if len(flame) else np.zeros((0, 3, 3))
        trace = rotations[:, 0, 0] - rotations[:, 1, 1] - rotations[:, 2, 2]
        angle = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0)))
        self._angle_sum += float(angle.sum(dtype=np.float64))
        for name, values in (
            ("head_height_px", heights),
            ("yaw_deg", euler[:, 1]),
            ("pitch_deg", euler[:, 0]),
            ("roll_deg", euler[:, 2]),
            ("angle_from_frontal_deg", angle),
        ):
            self._bins[name] += _histogram(values, _EDGES[name])

    def table(self, exclusions: pd.DataFrame) -> pd.DataFrame:
        """Return the statistics of all that was added.

        Angles are of heads that have parameters; `num_heads_without_parameters` counts the others
        (too small to be labelled).

        Args:
            exclusions: Exclusions of all stages up to the filters, columns of `EXCLUSIONS`; a head
                is written `sample_id#head_id` and does not count as a dropped sample.

        Returns:
            Tidy table with columns `section`, `name`, `value` (float64). Sections: `count` (totals
            and means), `split` (images kept), `heads_per_image`, `head_height_px`, `yaw_deg`,
            `pitch_deg`, `roll_deg`, `angle_from_frontal_deg` (histograms, name = bin), `monk_tone`
            (people in kept images), `drop_in`, `drop_out`, `drop_rate` (name = stage),
            `exclusion_reason` (name = `stage: reason`).
        """
        most = max(*self._heads_per_image, 1) if self._heads_per_image else 1
        rows = [
            *self._totals(),
            *_value_counts("split", self._splits, ["train", "val", "test"]),
            *_value_counts("heads_per_image", self._heads_per_image, range(most + 1)),
            *self._binned("head_height_px"),
            ("count", "mean_angle_from_frontal_deg", self._mean_angle()),
            *(row for name in _ANGLES for row in self._binned(name)),
            *_value_counts("monk_tone", self._tones, list(MONK_TONES)),
            *_drops(self._num_images, self._num_verdicts, self._splits.total(), exclusions),
        ]
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table.astype({"value": "float64"})

    def _totals(self) -> list[Row]:
        heights = np.concatenate(self._heights) if self._heights else np.zeros(0, np.float32)
        num_images, num_heads = self._splits.total(), len(heights)
        poses = np.unique(np.concatenate(self._poses)) if self._poses else ()
        return [
            ("count", "num_images_generated", self._num_images),
            ("count", "num_images", num_images),
            ("count", "num_heads", num_heads),
            ("count", "num_heads_with_parameters", self._num_with_parameters),
            ("count", "num_heads_without_parameters", num_heads - self._num_with_parameters),
            ("count", "mean_heads_per_image", num_heads / num_images if num_images else 0.0),
            ("count", "median_head_height_px", float(np.median(heights)) if num_heads else 0.0),
            ("count", "num_source_poses", len(poses)),
        ]

    def _mean_angle(self) -> float:
        return self._angle_sum / self._num_with_parameters if self._num_with_parameters else 0.0

    def _binned(self, name: str) -> list[Row]:
        edges, counts = _EDGES[name], self._bins[name]
        return [
            (name, f"{low:g} to {high:g}", int(count))
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]


def section(statistics: pd.DataFrame, name: str) -> pd.Series:
    """Return one section of the statistics.

    Args:
        statistics: From `compute_statistics`.
        name: Name of the section.

    Returns:
        Values by name, in order.

    Raises:
        KeyError: No such section.
    """
    rows = statistics[statistics["section"] == name]
    if rows.empty:
        raise KeyError(f"statistics: no section {name!r}, got {sorted(set(statistics['section']))}")
    return pd.Series(rows["value"].to_numpy(), index=rows["name"].to_numpy(), name=name)


def write_statistics(statistics: pd.DataFrame, out_dir: Path) -> dict[str, Path]:
    """Write `statistics.csv` and `statistics.json` (sections of name and value).

    Args:
        statistics: From `compute_statistics`.
        out_dir: Target folder.

    Returns:
        Paths by `csv` and `json`.
    """
    paths = {"csv": out_dir / "statistics.csv", "json": out_dir / "statistics.json"}
    write_text(paths["csv"], statistics.to_csv(index=False, lineterminator="\n"))
    nested = {
        name: {str(key): float(value) for key, value in section(statistics, name).items()}
        for name in dict.fromkeys(statistics["section"])
    }
    write_json(paths["json"], nested)
    return paths


def plot_statistics(statistics: pd.DataFrame, out_dir: Path) -> dict[str, Path]:
    """Draw every distribution as a bar chart; the same statistics give the same bytes.

    Args:
        statistics: From `compute_statistics`.
        out_dir: Target folder; files are `<section>.png`, and `overview.png` with all of them.

    Returns:
        Paths by section name, plus `overview`; sections without rows have no plot.
    """
    present = [name for name in _TITLES if (statistics["section"] == name).any()]
    paths = {}
    with mpl.rc_context({"font.size": 8, "axes.titlesize": 9, "svg.hashsalt": "vggheads"}):
        for name in present:
            figure = Figure(figsize=(5, 3), dpi=110, layout="constrained")
            _bar_chart(figure.subplots(), name, section(statistics, name))
            paths[name] = _save(figure, out_dir / f"{name}.png")
        columns = 3
        num_rows = -(-len(present) // columns)
        figure = Figure(figsize=(13, 2.9 * max(num_rows, 1)), dpi=90, layout="constrained")
        axes = np.atleast_1d(figure.subplots(max(num_rows, 1), columns)).ravel()
        for axis, name in zip(axes, present, strict=False):
            _bar_chart(axis, name, section(statistics, name))
        for axis in axes[len(present) :]:
            axis.set_axis_off()
        paths["overview"] = _save(figure, out_dir / "overview.png")
    return paths


def _check_verdicts(images: pd.DataFrame, verdicts: pd.DataFrame) -> None:
    doubled = verdicts.loc[verdicts["sample_id"].duplicated(), "sample_id"]
    if len(doubled):
        raise ValueError(f"statistics: verdicts name {doubled.iloc[0]} twice; expected one verdict")
    unknown = sorted(set(verdicts["sample_id"]) - set(images["sample_id"]))
    if unknown:
        raise ValueError(
            f"statistics: {len(unknown)} verdicts are about images that do not exist, such as "
            f"{unknown[0]}; expected ids of the images table"
        )


def _drops(
    num_images: int, num_verdicts: int, num_kept: int, exclusions: pd.DataFrame
) -> list[Row]:
    """Return samples that entered and left each stage, counted back from the images that exist."""
    samples = exclusions[~exclusions["sample_id"].str.contains("#", regex=False).astype(bool)]
    dropped = samples.groupby("stage")["sample_id"].nunique()
    outs = {"images": num_images}
    outs["captions"] = num_images + int(dropped.get("images", 0))
    outs["poses"] = outs["captions"] + int(dropped.get("captions", 0))
    outs["annotations"] = num_images - int(dropped.get("annotations", 0))
    outs["filtered_dataset"] = num_kept
    ins = {
        "poses": outs["poses"] + int(dropped.get("poses", 0)),
        "captions": outs["poses"],
        "images": outs["captions"],
        "annotations": num_images,
        "filtered_dataset": num_verdicts,
    }
    rows: list[Row] = []
    for name in DROP_STAGES:
        rate = 1 - outs[name] / ins[name] if ins[name] else 0.0
        rows += [("drop_in", name, ins[name]), ("drop_out", name, outs[name])]
        rows.append(("drop_rate", name, round(rate, 6)))
    reasons = Counter(
        f"{stage}: {reason}"
        for stage, reason in zip(exclusions["stage"], exclusions["reason"], strict=True)
        if stage in DROP_STAGES
    )
    rows += [("exclusion_reason", name, count) for name, count in sorted(reasons.items())]
    return rows


def _value_counts(name: str, counts: Counter[Any], order: Iterable[Any]) -> list[Row]:
    return [(name, str(value), counts[value]) for value in order]


def _histogram(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return counts of a bin each; values beyond the last edge count in the last bin."""
    clipped = np.clip(np.asarray(values, dtype=np.float64), edges[0], edges[-1])
    counts, _ = np.histogram(clipped, bins=np.asarray(edges, dtype=np.float64))
    return counts


def _bar_chart(axis: Axes, name: str, values: pd.Series) -> None:
    labels = [str(label) for label in values.index]
    numbers = values.to_numpy()
    is_histogram = " to " in labels[0]
    if is_histogram:  # ticks at the bins' lower edges
        labels = [label.split(" to ")[0] for label in labels]
    if name in ("drop_rate", "exclusion_reason"):
        axis.barh(range(len(numbers)), numbers, color=_BAR_COLOUR)
        axis.set_yticks(range(len(numbers)), labels)
        axis.invert_yaxis()
        for index, number in enumerate(numbers):
            text = f" {number:.1%}" if name == "drop_rate" else f" {number:.0f}"
            axis.text(number, index, text, va="center")
        axis.margins(x=0.2)
    else:
        shift = 0.45 if is_histogram else 0.0
        axis.bar(np.arange(len(numbers)) + shift, numbers, color=_BAR_COLOUR, width=0.9)
        step = max(1, len(labels) // 12)
        axis.set_xticks(range(0, len(labels), step), labels[::step])
    axis.set_title(_TITLES[name])
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata=_PNG_METADATA)
    return path
