"""The dataset card: the data's nature, origin, content and excluded uses.

Markdown with the front matter that the Hugging Face hub reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd
import yaml

from ml.dataset.statistics import DROP_STAGES, section
from ml.records.atomic import write_text
from ml.records.config import parse_yaml
from ml.records.register import lookup

LABEL_QUALITY_TITLE: Final = "Quality of the labels"
KNOWN_LIMITS: Final = (
    "Labels of the training images are pseudo-labels: a detector and a regressor made them. Their "
    "measured quality is given above where ground truth exists.",
    "Heads too small to be labelled have a box but no head parameters.",
    "The z translation of the head parameters means nothing; weak perspective leaves it open.",
    "Skin tones and words of origin are drawn evenly, not in the fractions of any population.",
    "Removing names from captions and faces known from elsewhere lowers the risk that a generated "
    "person resembles a real one; it does not exclude it.",
    "Not meant for recognising persons, nor for deciding anything about a person.",
)
_RENDERED_LIMIT: Final = (
    "These images are rendered from an artist's head model and simple bodies. They exercise the "
    "whole pipeline; a model trained on them alone will not work well on photographs."
)
_SIZE_CATEGORIES: Final = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)


@dataclass(frozen=True)
class CardMetadata:
    """Content of a card in addition to the statistics.

    Attributes:
        name: Name of the dataset.
        profile: Profile of the run, such as `demo`.
        run_seed: The run's seed.
        image_size: Such as `256x256`.
        parents: Names in the asset register of everything the data descends from.
        label_quality: Metric name to value, measured against ground truth; empty when unknown.
        settings: Settings a reader needs to make the data again, name to value.
        rendered: Whether the images are rendered, not made by a diffusion model.
    """

    name: str
    profile: str
    run_seed: int
    image_size: str
    parents: Sequence[str]
    label_quality: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    rendered: bool = True


def write_card(
    path: Path, statistics: pd.DataFrame, plots: Mapping[str, Path], metadata: CardMetadata
) -> None:
    """Write the dataset card.

    Args:
        path: Target, `CARD.md`; plots are linked relative to its folder.
        statistics: From `ml.dataset.statistics.compute_statistics`.
        plots: From `ml.dataset.statistics.plot_statistics`.
        metadata: The rest.

    Raises:
        KeyError: A parent is not in the asset register, or a section of the statistics is missing.
    """
    parts = [
        _front_matter(statistics, metadata),
        _introduction(statistics, metadata),
        _statistics_part(path, statistics, plots),
        _quality_part(metadata),
        _licence_part(metadata),
        _limits_part(metadata),
        _columns_part(),
    ]
    write_text(path, "\n\n".join(part.strip() for part in parts if part) + "\n")


def markdown_table(frame: pd.DataFrame) -> str:
    """Return a data frame as a Markdown table, without its index.

    Args:
        frame: Any columns; floats are shown with four significant digits.

    Returns:
        Lines joined by newlines; pipes in cells are escaped.
    """
    header = [str(name) for name in frame.columns]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(_cell(value) for value in row) + " |")
    return "\n".join(lines)


def with_front_matter(card: str, fields: Mapping[str, object]) -> str:
    """Return a card with more fields in its front matter.

    Args:
        card: Text of a card.
        fields: What to add.

    Returns:
        The card's text.

    Raises:
        ValueError: The card does not begin with front matter.
    """
    parts = card.split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        raise ValueError("dataset card: expected front matter between two lines of ---")
    merged = {**parse_yaml(parts[1]), **fields}
    text = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n{parts[2]}"


def _front_matter(statistics: pd.DataFrame, metadata: CardMetadata) -> str:
    num_images = section(statistics, "count")["num_images"]
    sizes = (label for limit, label in _SIZE_CATEGORIES if num_images < limit)
    # what is dedicated to the public asks for nothing
    licences = sorted({lookup(name).licence for name in metadata.parents} - {"CC0-1.0"})
    fields = {
        "pretty_name": metadata.name,
        "license": "other" if len(licences) != 1 else licences[0].lower(),
        "task_categories": ["object-detection", "keypoint-detection", "image-to-3d"],
        "tags": ["head detection", "head pose", "3D morphable model", "FLAME", "synthetic"],
        "size_categories": [next(sizes, "1M<n<10M")],
    }
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---"


def _introduction(statistics: pd.DataFrame, metadata: CardMetadata) -> str:
    count, split = section(statistics, "count"), section(statistics, "split")
    made = (
        "rendered from sampled skeletons and scene descriptions"
        if metadata.rendered
        else "generated by a diffusion model from skeletons and captions"
    )
    lines = [
        f"# {metadata.name}",
        f"{count['num_images']:,.0f} images with {count['num_heads']:,.0f} heads "
        f"({count['mean_heads_per_image']:.2f} an image), {made}, after the method of "
        "VGGHeads (arXiv 2407.18245). Every head has a box; "
        f"{count['num_heads_with_parameters']:,.0f} have 413 head-model parameters.",
        f"Profile `{metadata.profile}`, seed {metadata.run_seed}, {metadata.image_size} px. "
        f"Splits by source pose, so that no pose is in two: train {split['train']:,.0f}, "
        f"val {split['val']:,.0f}, test {split['test']:,.0f} images.",
    ]
    if metadata.settings:
        rows = [{"setting": name, "value": value} for name, value in metadata.settings.items()]
        lines += ["## Settings", markdown_table(pd.DataFrame(rows))]
    return "\n\n".join(lines)


def _statistics_part(path: Path, statistics: pd.DataFrame, plots: Mapping[str, Path]) -> str:
    count = section(statistics, "count")
    totals = pd.DataFrame({"statistic": count.index, "value": count.to_numpy()})
    entered, left = section(statistics, "drop_in"), section(statistics, "drop_out")
    rate = section(statistics, "drop_rate")
    drops = pd.DataFrame(
        [
            {
                "stage": name,
                "in": int(entered[name]),
                "out": int(left[name]),
                "dropped": f"{rate[name]:.1%}",
            }
            for name in DROP_STAGES
        ]
    )
    lines = ["## Statistics", markdown_table(totals), "### Dropped on the way"]
    lines.append(markdown_table(drops))
    if (statistics["section"] == "exclusion_reason").any():
        reasons = section(statistics, "exclusion_reason")
        lines.append(
            markdown_table(
                pd.DataFrame({"reason": reasons.index, "samples": reasons.to_numpy().astype(int)})
            )
        )
    for name, plot in plots.items():
        link = Path(os.path.relpath(plot, path.parent)).as_posix()
        lines.append(f"![{name.replace('_', ' ')}]({link})")
    return "\n\n".join(lines)


def _quality_part(metadata: CardMetadata) -> str:
    if not metadata.label_quality:
        return ""
    rows = [{"metric": name, "value": value} for name, value in metadata.label_quality.items()]
    return (
        f"## {LABEL_QUALITY_TITLE}\n\nPseudo-labels against ground truth:\n\n"
        f"{markdown_table(pd.DataFrame(rows))}"
    )


def _licence_part(metadata: CardMetadata) -> str:
    rows = []
    for name in metadata.parents:
        asset = lookup(name)
        rows.append(
            {
                "parent": asset.name,
                "licence": asset.licence,
                "commercial use": "yes" if asset.commercial else "no",
                "may be passed on": "yes" if asset.redistributable else "no",
            }
        )
    return (
        "## Licences\n\nWhat may be done with the data depends on everything it descends from. "
        f"This is not legal advice.\n\n{markdown_table(pd.DataFrame(rows))}"
    )


def _limits_part(metadata: CardMetadata) -> str:
    limits = [*KNOWN_LIMITS, _RENDERED_LIMIT] if metadata.rendered else list(KNOWN_LIMITS)
    return "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _columns_part() -> str:
    return (
        "## How to read it\n\n"
        "Images are in tar shards named as WebDataset expects. `heads.parquet` has a row a head: "
        "`bbox_xywh` in px, `score`, and `flame`, 413 float32: [0:300] shape, [300:400] "
        "expression, [400:403] jaw axis-angle, [403:409] rotation (first two columns of the "
        "matrix), [409:412] translation in px, [412] scale in px per metre; image frame, x right, "
        "y down."
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        value = f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
