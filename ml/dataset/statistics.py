"""What is in the dataset, and what was dropped on the way: one tidy table and its plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

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

_HEAD_SIZE_EDGES_PX: Final = (0, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
_ANGLE_EDGES_DEG: Final = tuple(range(-180, 181, 15))
_FRONTAL_EDGES_DEG: Final = tuple(range(0, 181, 15))
_TITLES: Final = {
    "heads_per_image": "Heads per image",
    "head_height_px": "Head box height, px",
    "yaw_deg": "Yaw, degrees (positive: to the image's left)",
    "pitch_deg": "Pitch, degrees (negative: down)",
    "roll_deg": "Roll, degrees",
    "angle_from_frontal_deg": "Angle from frontal, degrees",
    "monk_tone": "Monk skin tone of the people shown",
    "drop_rate": "Share dropped by stage",
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
    """Return statistics of the filtered dataset.

    Angles are computed for heads that have parameters; `num_heads_without_parameters` counts the
    others (too small to be labelled).

    Args:
        images: All generated images, columns of `IMAGES`.
        heads: Annotated heads, columns of `HEADS` at least; those of removed images are ignored.
        verdicts: One row an image that reached the filters, columns of `VERDICTS`.
        exclusions: Exclusions of all stages up to the filters, columns of `EXCLUSIONS`; a head is
            written `sample_id#head_id` and does not count as a dropped sample.
        captions: Columns of `CAPTIONS`; its scenes hold the skin tones.

    Returns:
        Tidy table with columns `section`, `name`, `value` (float64). Sections: `count` (totals
        and means), `split` (images kept), `heads_per_image`, `head_height_px`, `yaw_deg`,
        `pitch_deg`, `roll_deg`, `angle_from_frontal_deg` (histograms, name = bin), `monk_tone`
        (people in kept images), `drop_in`, `drop_out`, `drop_rate` (name = stage),
        `exclusion_reason` (name = `stage: reason`).

    Raises:
        ValueError: Verdicts name an image twice or one that does not exist.
    """
    _check_verdicts(images, verdicts)
    kept_ids = set(verdicts.loc[verdicts["keep"].astype(bool), "sample_id"])
    kept_images = images[images["sample_id"].isin(kept_ids)]
    kept_heads = heads[heads["sample_id"].isin(kept_ids)]
    rows: list[tuple[str, str, float]] = []
    rows += _counts(images, kept_images, kept_heads)
    rows += _value_counts("split", kept_images["split"].tolist(), ["train", "val", "test"])
    per_image = kept_heads.groupby("sample_id").size().reindex(sorted(kept_ids), fill_value=0)
    most = max(int(per_image.max()) if len(per_image) else 0, 1)
    rows += _value_counts(
        "heads_per_image", [int(n) for n in per_image], [int(n) for n in range(most + 1)]
    )
    boxes = stack(kept_heads["bbox_xywh"]).reshape(-1, 4)
    rows += _histogram("head_height_px", boxes[:, 3], _HEAD_SIZE_EDGES_PX)
    rows += _angles(kept_heads)
    tones = [
        person.skin_tone
        for text in captions.loc[captions["sample_id"].isin(kept_ids), "scene"]
        if text != NO_SCENE
        for person in Scene.from_json(text).people
    ]
    rows += _value_counts("monk_tone", tones, list(MONK_TONES))
    rows += _drops(images, verdicts, exclusions)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"value": "float64"})


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


def _counts(
    images: pd.DataFrame, kept_images: pd.DataFrame, kept_heads: pd.DataFrame
) -> list[tuple[str, str, float]]:
    num_images, num_heads = len(kept_images), len(kept_heads)
    with_parameters = int(kept_heads["flame"].notna().sum())
    heights = stack(kept_heads["bbox_xywh"]).reshape(-1, 4)[:, 3]
    return [
        ("count", "num_images_generated", len(images)),
        ("count", "num_images", num_images),
        ("count", "num_heads", num_heads),
        ("count", "num_heads_with_parameters", with_parameters),
        ("count", "num_heads_without_parameters", num_heads - with_parameters),
        ("count", "mean_heads_per_image", num_heads / num_images if num_images else 0.0),
        ("count", "median_head_height_px", float(np.median(heights)) if num_heads else 0.0),
        ("count", "num_source_poses", int(kept_images["pose_id"].nunique())),
    ]


def _angles(heads: pd.DataFrame) -> list[tuple[str, str, float]]:
    """Return histograms of Euler angles, and of the angle from frontal."""
    labelled = heads.loc[heads["flame"].notna(), "flame"]
    flame = stack(labelled).reshape(-1, NUM_PARAMETERS)
    euler = HeadGeometry.euler_deg(flame) if len(flame) else np.zeros((0, 3))
    rows: list[tuple[str, str, float]] = []
    for index, name in ((1, "yaw_deg"), (0, "pitch_deg"), (2, "roll_deg")):
        rows += _histogram(name, euler[:, index], _ANGLE_EDGES_DEG)
    rotations = HeadGeometry.rotations(flame) if len(flame) else np.zeros((0, 3, 3))
    trace = rotations[:, 0, 0] - rotations[:, 1, 1] - rotations[:, 2, 2]
    angle = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1.0, 1.0)))
    rows += _histogram("angle_from_frontal_deg", angle, _FRONTAL_EDGES_DEG)
    mean = float(angle.mean()) if len(angle) else 0.0
    return [("count", "mean_angle_from_frontal_deg", mean), *rows]


def _drops(
    images: pd.DataFrame, verdicts: pd.DataFrame, exclusions: pd.DataFrame
) -> list[tuple[str, str, float]]:
    """Return samples that entered and left each stage, counted back from the images that exist."""
    samples = exclusions[~exclusions["sample_id"].str.contains("#", regex=False).astype(bool)]
    dropped = samples.groupby("stage")["sample_id"].nunique()
    num_images = len(images)
    outs = {"images": num_images}
    outs["captions"] = num_images + int(dropped.get("images", 0))
    outs["poses"] = outs["captions"] + int(dropped.get("captions", 0))
    outs["annotations"] = num_images - int(dropped.get("annotations", 0))
    outs["filtered_dataset"] = int(verdicts["keep"].sum())
    ins = {
        "poses": outs["poses"] + int(dropped.get("poses", 0)),
        "captions": outs["poses"],
        "images": outs["captions"],
        "annotations": num_images,
        "filtered_dataset": len(verdicts),
    }
    rows: list[tuple[str, str, float]] = []
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


def _value_counts(
    name: str, values: Sequence[object], order: Sequence[object]
) -> list[tuple[str, str, float]]:
    counts = Counter(values)
    return [(name, str(value), counts[value]) for value in order]


def _histogram(
    name: str, values: np.ndarray, edges: Sequence[float]
) -> list[tuple[str, str, float]]:
    """Return one row a bin; values beyond the last edge count in the last bin."""
    clipped = np.clip(np.asarray(values, dtype=np.float64), edges[0], edges[-1])
    counts, _ = np.histogram(clipped, bins=np.asarray(edges, dtype=np.float64))
    return [
        (name, f"{low:g} to {high:g}", int(count))
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


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
