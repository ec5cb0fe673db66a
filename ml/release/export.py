"""The only way to export the dataset: check licences, write the format, write the card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ml.dataset.card import with_front_matter
from ml.flame.head_model import HeadModel
from ml.records.atomic import atomic_folder, write_json, write_text
from ml.records.exclusions import Exclusions
from ml.records.progress import progress
from ml.records.register import check_export, lookup, permission
from ml.records.report import StageReport
from ml.records.workspace import Workspace
from ml.release.coco_export import write_coco_export
from ml.release.derived import check_names, derive
from ml.release.huggingface import card_front_matter, write_huggingface
from ml.release.official_writer import write_official
from ml.release.source import STAGE, DatasetItem, count_kept, iter_dataset
from ml.release.webdataset import write_webdataset

FORMATS: Final[Mapping[str, Callable[[Iterable[DatasetItem], Path], int]]] = {
    "official": write_official,
    "coco": write_coco_export,
    "webdataset": write_webdataset,
    "huggingface": write_huggingface,
}
"""Writers by the name of their format."""
SPLITS: Final = ("train", "val", "test")
CARD_NAME: Final = "README.md"
LICENCES_NAME: Final = "licences.json"
EXCLUSIONS_NAME: Final = "exclusions.csv"


@dataclass(frozen=True)
class ExportRequest:
    """What to write where.

    Attributes:
        format: a key of `FORMATS`.
        target: folder to make; must not exist, or be empty.
        parents: everything the dataset descends from, by name in the asset register.
        commercial: whether the copy is for commercial use.
        splits: which splits.
        derived: what to compute from the parameters and add, keys of `ml.release.derived.DERIVED`.
    """

    format: str
    target: Path
    parents: Sequence[str]
    commercial: bool = False
    splits: Sequence[str] = SPLITS
    derived: Sequence[str] = ()


def export_dataset(ws: Workspace, request: ExportRequest) -> StageReport:
    """Write a copy of the dataset that may be given away.

    Nothing is written when a licence forbids it. The folder appears when it is complete.

    Args:
        ws: the workspace; reads `filtered_dataset`, `images`, `captions`.
        request: what to write where.

    Returns:
        Counts of images.

    Raises:
        LicenceError: a parent forbids it; it is named.
        KeyError: a parent is not registered.
        ValueError: the format or a split is unknown, or there is something at the target.
        FileNotFoundError: the dataset has not been made.
    """
    check_export(request.parents, request.commercial)
    _check_request(request)
    exclusions = Exclusions("export")
    total = count_kept(ws, request.splits)
    target = request.target
    samples = iter_dataset(ws, exclusions, request.splits)
    if request.derived:
        head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
        samples = derive(samples, request.derived, head_model)
    items = progress(samples, "export", total)
    with atomic_folder(target) as temporary:
        count = FORMATS[request.format](items, temporary)
        _write_card(ws, request, temporary)
        _write_licences(request, temporary)
        write_text(temporary / EXCLUSIONS_NAME, exclusions.to_frame().to_csv(index=False))
    return StageReport(
        num_in=total,
        num_out=count,
        num_excluded=len(exclusions),
        metadata={"format": request.format, "target": str(target)},
        tables={"exclusions": exclusions.to_frame()},
    )


def _check_request(request: ExportRequest) -> None:
    if request.format not in FORMATS:
        raise ValueError(f"export: expected a format of {list(FORMATS)}, got {request.format!r}")
    if unknown := sorted(set(request.splits) - set(SPLITS)):
        raise ValueError(f"export: unknown splits {unknown}, expected some of {list(SPLITS)}")
    check_names(request.derived)
    target = request.target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"export: {target} is there already; name a folder that is to be made")


def _write_card(ws: Workspace, request: ExportRequest, folder: Path) -> None:
    """Write the dataset's card with its plots; the hub's front matter where the hub reads it."""
    dataset = ws.stage_dir(STAGE)
    card = dataset / "CARD.md"
    if not card.exists():
        return
    text = card.read_text(encoding="utf-8")
    if request.format == "huggingface":
        text = with_front_matter(text, card_front_matter(request.splits))
    write_text(folder / CARD_NAME, text)
    if (dataset / "plots").is_dir():
        shutil.copytree(dataset / "plots", folder / "plots")


def _write_licences(request: ExportRequest, folder: Path) -> None:
    allowed = permission(request.parents)
    rows = [
        {
            "name": asset.name,
            "licence": asset.licence,
            "url": asset.url,
            "commercial": asset.commercial,
            "redistributable": asset.redistributable,
        }
        for asset in map(lookup, allowed.parents)
    ]
    write_json(
        folder / LICENCES_NAME,
        {"commercial_use": allowed.commercial, "parents": rows},
    )
