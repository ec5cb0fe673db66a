"""Jobs on the dataset: a copy to give away, images to label or train on, samples to take down."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from ml.records.parents import dataset_parents
from ops.resources import CommandFailed, Dataset, FineTuning, Takedown


class ExportConfig(dg.Config):
    """What to write where."""

    format: str
    """official, coco, webdataset or huggingface."""
    target: str
    """Folder to make."""
    commercial: bool = False
    """Whether the copy is for commercial use."""
    splits: list[str] = Field(default_factory=list)
    """Which of train, val and test; none given: all."""
    derive: list[str] = Field(default_factory=list)
    """Quantities to add to the parameters: landmarks, euler, rotation, part_boxes, vertices."""


@dg.op
def export_dataset(context: dg.OpExecutionContext, config: ExportConfig, dataset: Dataset) -> int:
    """Write a copy of the dataset; returns the number of images.

    Raises:
        dg.Failure: a licence forbids it, or there is nothing to write.
    """
    from ml.release.export import SPLITS, ExportRequest
    from ml.release.export import export_dataset as write

    values = dataset.values()
    card = values["filtered_dataset"]["metadata"]["parents"]
    parents = sorted({*dataset_parents(values), *card})
    request = ExportRequest(
        config.format,
        Path(config.target),
        parents,
        config.commercial,
        config.splits or SPLITS,
        config.derive,
    )
    try:
        report = write(dataset.workspace(), request)
    except (ValueError, FileNotFoundError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info("%d images, %d left out", report.num_out, report.num_excluded)
    return report.num_out


class LabelExportConfig(dg.Config):
    """Which images go to the labelling tool."""

    target: str
    """Folder to make."""
    count: int = 200
    """Images."""
    fraction_worst: float = 0.5
    """Which part of them is of worst agreement."""


@dg.op
def export_for_labelling(config: LabelExportConfig, dataset: Dataset) -> int:
    """Write images, pre-annotations and the gallery; returns the number of images."""
    from ml.labels.tool_export import export_for_labelling as write

    workspace = dataset.workspace()
    report = write(workspace, Path(config.target), config.count, config.fraction_worst)
    return report.num_out


class FineTuneConfig(dg.Config):
    """Whose boxes."""

    images: str
    """Folder of the images."""
    boxes: str
    """Their boxes, a COCO detection file."""
    labels: list[str] = Field(default_factory=list)
    """Categories that mean a head; none given: head."""


@dg.op
def fine_tune_on_own_boxes(
    context: dg.OpExecutionContext, config: FineTuneConfig, fine_tuning: FineTuning
) -> str:
    """Label, import, train and measure; returns the path of the report.

    Raises:
        dg.Failure: a step failed; the message is what it said.
    """
    try:
        report = fine_tuning.run(Path(config.images), Path(config.boxes), config.labels)
    except CommandFailed as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata({"report": dg.MetadataValue.path(str(report))})
    return str(report)


class TakedownConfig(dg.Config):
    """What is to go."""

    samples: list[str] = Field(default_factory=list)
    """Ids of images."""
    sources: list[str] = Field(default_factory=list)
    """Ids of poses, whose every image goes."""


@dg.op
def take_down(context: dg.OpExecutionContext, config: TakedownConfig, takedown: Takedown) -> int:
    """Remove samples from every file and search for what is left; returns how many are gone.

    Raises:
        dg.Failure: an id is unknown, or something is still there; the message says where.
    """
    try:
        report = takedown.remove(config.samples, config.sources)
    except ValueError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if report.left:
        raise dg.Failure("still there:\n" + "\n".join(report.left), allow_retries=False)
    context.log.info("to be made again: %s", ", ".join(report.stale) or "nothing")
    return len(report.samples)


@dg.job(description="Export the dataset, if the licences of its parents allow it.")
def export_dataset_job() -> None:
    """The export alone."""
    export_dataset()


@dg.job(description="Export images with initial boxes to Label Studio and CVAT.")
def label_export_job() -> None:
    """The labelling export alone."""
    export_for_labelling()


@dg.job(description="Fine-tune on your own images and boxes (profile finetune).")
def fine_tune_job() -> None:
    """The fine-tuning alone; the stages that it makes are runs of their own."""
    fine_tune_on_own_boxes()


@dg.job(description="Remove images or sources from all shards, tables and locks, and verify it.")
def takedown_job() -> None:
    """The takedown alone."""
    take_down()
