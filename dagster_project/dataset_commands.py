"""Commands on the dataset: in and out, labelling, licences, identity index, takedown, costs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dagster_project.pipeline import Pipeline
from ml.records.printing import print_json

if TYPE_CHECKING:
    from ml.labels.first_round import PreBoxes


def accept_statistics(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print the statistics of the data on disk, and store them as the profile's reference."""
    from assets.checks.bounded import accept_reference
    from assets.checks.measured import measured

    table = measured(pipeline.workspace(), pipeline.units("crops"))
    print(table.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    if options.show:
        return 0
    path = accept_reference(pipeline.workspace(), pipeline.units("crops"))
    print(
        f"{path.relative_to(pipeline.root)} holds the columns of this run; look at its difference "
        "with `git diff --stat`, and commit it if the change is meant"
    )
    return 0


def export_dataset(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Write a copy of the dataset."""
    from ml.release.export import SPLITS, ExportRequest
    from ml.release.export import export_dataset as write

    request = ExportRequest(
        options.format,
        options.target.absolute(),
        run_parents(pipeline.effective_values(), model=False),
        options.commercial,
        tuple(options.split or SPLITS),
        tuple(options.derive),
    )
    report = write(pipeline.workspace(), request)
    print(f"{report.num_out} images in {options.target}, {report.num_excluded} left out")
    return 0


def import_official(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Read the official release."""
    from ml.release.official_import import import_official as read

    report = read(options.source, options.target, pipeline.params.run.seed)
    print(f"{report.num_out} images in {options.target / 'data'}")
    for reason, count in report.tables["exclusions"]["reason"].value_counts().items():
        print(f"left out: {count} {reason}")
    return 0


def fine_tune(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Label one's own boxes with the configured teacher, then import, train and measure."""
    from dagster_project.preflight import ensure
    from dagster_project.project_commands import materialize
    from ml.annotation.backends import load_flame_regressor
    from ml.annotation.own_boxes import write_own_release
    from ml.flame.head_model import HeadModel
    from ml.stages.annotations import AnnotationsConfig
    from ml.stages.released_dataset import ReleasedDatasetConfig

    dataset = pipeline.params.read(ReleasedDatasetConfig, "released_dataset")
    if not dataset.enabled or len(dataset.sources) != 1:
        raise ValueError(
            "fine-tune: released_dataset must be enabled and name one source, the folder that the "
            "labelled images go to; `vggheads profile finetune` writes such values"
        )
    config = pipeline.params.read(AnnotationsConfig, "annotations")
    # Our own teacher is trained here; anybody else's is a file.
    first = ["head_model", *(["flame_regressor"] if config.regressor.backend == "own" else [])]
    if problems := ensure(pipeline, [*first, "annotations", "released_model"]):
        print(f"{len(problems)} problems of the preflight: nothing was started")
        return 1

    def make(stage: str, *, force: bool = False) -> int:
        asked = {"stage": stage, "shard": None, "force": force, "upstream": not force}
        return materialize(pipeline, argparse.Namespace(**asked, verbose=options.verbose))

    for stage in first:
        if status := make(stage):
            return status
    ws = pipeline.workspace()
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    teacher = load_flame_regressor(ws, config.regressor, head_model, config.device)
    target, heads = ws.root / dataset.sources[0], options.label or ["head"]
    count, left_out = write_own_release(
        options.images, options.boxes, teacher, heads, config.min_side_px, target
    )
    print(f"{count} images labelled by {teacher.name} in {target}, {left_out} left out")
    # DVC does not track sources: an earlier import may have used other images.
    return make("released_dataset", force=True) or make("released_benchmark")


def check_release(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print the missing parts of a copy of the release; return 1 if there are any."""
    from ml.records.atomic import temporary_folder
    from ml.records.exclusions import Exclusions
    from ml.release.archives import Release
    from ml.release.manifest import what_lacks

    exclusions = Exclusions("check-release")
    with temporary_folder(pipeline.root) as lists:
        release = Release(options.source, lists, exclusions)
        lacks = what_lacks(release, options.source, not options.no_sums)
    print(f"{len(release.parts)} parts: {', '.join(release.parts[:5])}, ...")
    for row in [*lacks.itertuples(index=False)]:
        print(f"{row.what}: {row.where}: {row.detail}")
    for row in exclusions.to_frame().itertuples():
        print(f"unusable: {row.detail}")
    print("nothing is missing" if not len(lacks) else f"{len(lacks)} parts are missing")
    return 1 if len(lacks) else 0


def study(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Run a study and name its tables."""
    from ml.studies.running import require_study, run_study

    # Before the values are read, which imports all stages' libraries.
    require_study(options.name)
    folder = run_study(
        options.name,
        pipeline.workspace(),
        pipeline.effective_values(),
        pipeline.root / "mlruns",
        wider=options.wider,
        generators=options.generators,
        reference=options.reference,
        inception=options.inception,
        reference_limit=options.reference_limit,
        photographs=options.photographs,
        config=options.config,
    )
    print(f"written: {folder}")
    return 0


def licences(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Show parents and the uses that they allow."""
    from ml.records.register import lookup, permission

    allowed = permission(run_parents(pipeline.effective_values()))
    width = max(map(len, allowed.parents), default=0)
    for name in allowed.parents:
        print(f"{name:<{width}}  {lookup(name).licence}")
    for what, by in (
        ("commercial use", allowed.forbid_commercial),
        ("giving results away", allowed.forbid_redistribution),
    ):
        print(f"{what}: {'forbidden by ' + ', '.join(by) if by else 'allowed by every parent'}")
    return 0


def label_export(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Write images with boxes to correct: of the first round, or by the verdicts."""
    from ml.labels.tool_export import export_first_round, export_for_labelling
    from ml.stages.labels import LabelsConfig

    ws, target = pipeline.workspace(), options.target.absolute()
    judged = (ws.stage_dir("filtered_dataset") / "verdicts.parquet").is_file()
    if judged and not options.first and options.boxes is None:
        report = export_for_labelling(ws, target, options.count, options.worst)
    else:
        config = pipeline.params.read(LabelsConfig, "labels")
        val = config.num_val / (config.num_train + config.num_val)
        pre_boxes = _pre_boxes(pipeline, options.boxes)
        report = export_first_round(ws, target, pre_boxes, options.count, val)
    boxes = report.metadata["num_boxes"]
    print(f"{report.num_out} images, {boxes} boxes; look at {target / 'index.html'}")
    return 0


def _pre_boxes(pipeline: Pipeline, source: str | None) -> PreBoxes:
    """Return initial boxes: the requested kind, else the poses', else faces."""
    from ml.box_detection.faces import build_face_detector
    from ml.labels.first_round import PreBoxes, boxes_of_poses
    from ml.stages.filtered_dataset import FilteredDatasetConfig

    ws = pipeline.workspace()
    poses_are_there = all(ws.table_path("poses", shard).is_file() for shard in ws.shards)
    by_pose = boxes_of_poses(ws) if poses_are_there else {}
    if source == "none":
        return PreBoxes("nobody", {}, None)
    if source == "poses" or (source is None and poses_are_there):
        if not poses_are_there:
            raise ValueError("label-export: there are no poses; give --boxes faces or --boxes none")
        return PreBoxes("poses", by_pose)
    config = pipeline.params.read(FilteredDatasetConfig, "filtered_dataset")
    if config.face_check.backend == "none":
        raise ValueError(
            "label-export: boxes of faces need filtered_dataset.face_check.backend; set it, or "
            "give --boxes poses or --boxes none"
        )
    faces = build_face_detector(config.face_check, pipeline.root, config.device)
    assert faces is not None  # only backend none has none
    return PreBoxes(faces.name, by_pose, faces.detect_faces)


def label_import(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Check a file of labels, copy it to `labels/` and say how to use it."""
    from ml.labels.coco import write_coco
    from ml.labels.tool_import import import_labels, join_rounds, map_labels
    from ml.records.atomic import atomic_write
    from ml.records.exclusions import Exclusions
    from ml.records.files import read_file
    from ml.records.limits import MAX_JSON_BYTES
    from ml.records.tables import IMAGES, read_stage

    exclusions = Exclusions("label-import")
    images = read_stage(pipeline.workspace(), "images", IMAGES)
    folder = pipeline.root / "labels"
    target = folder / (options.name or options.file.name)
    earlier = [import_labels(folder / name, images, exclusions) for name in options.onto]
    with atomic_write(target) as copy:
        encoded = read_file(options.file, MAX_JSON_BYTES)
        if options.label or options.ignore:
            encoded = map_labels(encoded, ["head", *options.label], options.ignore)
        copy.write_bytes(encoded)
        found = import_labels(copy, images, exclusions)
        if earlier:
            write_coco(copy, join_rounds([*earlier, found]))
            found = import_labels(copy, images, exclusions)
    for row in exclusions.to_frame().itertuples():
        print(f"left out: {row.sample_id}: {row.reason}: {row.detail}")
    for split, data in found.datasets.items():
        print(f"{split}: {len(data.images)} images, {len(data.boxes)} boxes")
    print("use it with these values in the section labels of params.yaml:")
    print(f"  source: file\n  file: labels/{target.name}\n  file_sha256: {found.sha256}")
    return 0


def identity_index(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Embed a folder's faces with the models of the active profile, and measure a threshold."""
    from dataclasses import replace

    from ml.filtering.calibration import (
        CalibrationError,
        calibrate,
        measure,
        plot,
        read_identities,
    )
    from ml.filtering.identity import build_index, load_face_reader
    from ml.records.exclusions import Exclusions
    from ml.stages.filtered_dataset import FilteredDatasetConfig

    stage = pipeline.params.read(FilteredDatasetConfig, "filtered_dataset")
    config = stage.identity
    exclusions = Exclusions("identity-index")
    people = read_identities(options.identities) if options.identities else None
    reader = load_face_reader(config, pipeline.root, stage.device)
    index, numbers = build_index(options.folder, reader, exclusions, people)
    target = pipeline.root / (config.index or "private/identity_index.npz")
    known = numbers >= 0
    try:
        found = measure(index.embeddings[known], numbers[known])
        calibration = calibrate(found, options.target)
    except CalibrationError as error:
        print(f"no threshold: {error}; the index is of use only with a threshold of your own")
    else:
        index = replace(index, calibration=calibration)
        image = target.with_suffix(".calibration.png")
        plot(found, calibration, image)
        print(f"{calibration.describe()}; see {image}")
    index.save(target)
    print(f"{len(index.embeddings)} faces in {target}, {len(exclusions)} images left out")
    return 0


def identity_pairs(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Write the removed images next to the known faces that they resemble, for local use only."""
    from ml.filtering.identity import IdentityIndex, load_face_reader, threshold_of
    from ml.filtering.matched_pairs import find_pairs, write_pairs
    from ml.records.exclusions import Exclusions
    from ml.stages.filtered_dataset import FilteredDatasetConfig

    stage = pipeline.params.read(FilteredDatasetConfig, "filtered_dataset")
    config = stage.identity
    if not config.index:
        raise ValueError("identity-pairs: filtered_dataset.identity.index names no index")
    ws, exclusions = pipeline.workspace(), Exclusions("identity-pairs")
    index = IdentityIndex.load(pipeline.root / config.index)
    reader = load_face_reader(config, pipeline.root, stage.device)
    matches = find_pairs(ws, index, reader, options.count, exclusions)
    threshold = threshold_of(config, index)
    page = write_pairs(ws, matches, options.folder, threshold, "identity_pairs")
    print(f"{matches.account()}; {len(index.embeddings)} known faces, threshold {threshold:.3f}")
    if pipeline.unfinished("filtered_dataset", pipeline.units("filtered_dataset")):
        print("the filtered dataset was made with other settings or data: materialize it again")
    print(f"{page}: shows real persons, keep it on this machine")
    return 0


def takedown(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Remove and prove."""
    from dagster_project.takedown import run_takedown

    if not options.sample and not options.source:
        raise ValueError("takedown: name what is to go with --sample or --source")
    report = run_takedown(pipeline, options.sample, options.source)
    print(f"removed {len(report.samples)} images: {', '.join(report.samples[:5])}")
    edited, deleted = len(report.removal.edited), len(report.removal.deleted)
    print(f"{edited} files edited, {deleted} removed; recorded again: {', '.join(report.recorded)}")
    if report.stale:
        print(f"to be made again: {', '.join(report.stale)}")
    for line in report.left:
        print(f"still there: {line}")
    for remote in report.remotes:
        print(
            f"not searched: DVC's remote {remote}, which others may share; to keep only what the "
            f"present dvc.lock names there: dvc push -r {remote} && "
            f"dvc gc --workspace --cloud -r {remote}"
        )
    for place in report.unsearched:
        print(f"not searched: {place}")
    if report.left:
        print("not everything is gone")
    elif report.unsearched or report.remotes:
        print("nothing is left in what was searched; look into the rest yourself")
    else:
        print("every file was searched: nothing is left")
    return 1 if report.left else 0


def plan(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print hours and storage per stage."""
    from dagster_project.costs import kept_images, measure
    from ml.records.cost import PAPER_GPU_HOURS, PAPER_IMAGES, paper_hours, plan_costs

    given = json.loads(options.measured.read_text()) if options.measured else {}
    made = bool(pipeline.markers("filtered_dataset", pipeline.units("filtered_dataset")))
    assumed = ""
    if "measured" in given and not made:
        # A preflight, and no data on the fraction of images that pass the filters.
        run = pipeline.params.run
        kept = run.num_shards * run.shard_size
        measured = measure(pipeline, given["measured"], kept)
        missing = sorted(set(pipeline.graph) - {m.stage for m in measured})
        assumed = f"every image is kept; not measured, so not counted: {', '.join(missing)}"
    else:
        measured, kept = measure(pipeline, given.get("measured", given)), kept_images(pipeline)
    table = plan_costs(measured, options.images, kept, options.hour_price)
    if options.json:
        hours = paper_hours(options.images)
        print_json({"stages": table.to_dict("records"), "assumed": assumed, "paper_hours": hours})
        return 0
    if assumed:
        print(f"assumed: {assumed}\n")
    shown = table.round({"seconds_per_image": 4, "hours": 2, "gigabytes": 2, "cost": 2})
    print(shown.to_string(index=False))
    print(
        f"\nthe paper took {PAPER_GPU_HOURS:,.0f} GPU hours for {PAPER_IMAGES:,} images, which is "
        f"{paper_hours(options.images):,.0f} for {options.images:,}"
    )
    return 0


def run_parents(values: Mapping[str, Any], model: bool = True) -> tuple[str, ...]:
    """Return the parents of the active profile's results: derived, and those its card names.

    Args:
        values: section -> every key -> value.
        model: include parents of the trained detector; False: the dataset's parents alone.

    Raises:
        ValueError: something is not in the asset register.
    """
    from ml.records.parents import dataset_parents, derive_parents
    from ml.records.register import REGISTER

    card = dict(values.get("filtered_dataset") or {}).get("metadata") or {}
    derived = derive_parents(values) if model else dataset_parents(values)
    parents = {*derived, *card.get("parents", ())}
    if unknown := sorted(parents - set(REGISTER)):
        raise ValueError(
            f"asset register: {unknown} are not in it; add them to ml/records/register.py with "
            "their licences"
        )
    return tuple(sorted(parents))
