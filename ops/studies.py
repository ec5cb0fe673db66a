"""Jobs on studies of the paper: what is trained or generated several times and compared."""

from pathlib import Path
from typing import Any

import dagster as dg

from ops.resources import Dataset, ModelStore


class StudyConfig(dg.Config):
    """Inputs of a study in addition to the project."""

    wider: str = ""
    """Folder of WIDER FACE, for the comparison of datasets and the fine-tuning."""


class GeneratorsConfig(dg.Config):
    """What generators are measured with."""

    generators: str
    """YAML file: name -> {images: changes over the section, condition: text}."""
    reference: str
    """Folder or tars of real images."""
    inception: str
    """Weights of the Inception network, as pytorch-fid uses them."""
    reference_limit: int = 1500
    """First so many images of the reference."""


def _run(
    context: dg.OpExecutionContext, dataset: Dataset, mlflow: ModelStore, name: str, **given: Any
) -> str:
    from ml.studies.running import run_study

    try:
        folder = run_study(name, dataset.workspace(), dataset.values(), mlflow.runs_folder, **given)
    except (ValueError, FileNotFoundError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info("tables: %s", folder / "tables.html")
    return str(folder)


def _wider(config: StudyConfig) -> Path | None:
    return Path(config.wider) if config.wider else None


@dg.op
def ablate_losses(context: dg.OpExecutionContext, dataset: Dataset, mlflow: ModelStore) -> str:
    """Train without one of the losses each; returns the folder of the tables."""
    return _run(context, dataset, mlflow, "ablation")


@dg.op
def repeat_training(context: dg.OpExecutionContext, dataset: Dataset, mlflow: ModelStore) -> str:
    """Train with two more seeds; returns the folder of medians and ranges."""
    return _run(context, dataset, mlflow, "seeds")


@dg.op
def compare_datasets(
    context: dg.OpExecutionContext, config: StudyConfig, dataset: Dataset, mlflow: ModelStore
) -> str:
    """Train on this dataset and on WIDER FACE; returns the folder of the tables."""
    return _run(context, dataset, mlflow, "datasets", wider=_wider(config))


@dg.op
def finetune_on_wider(
    context: dg.OpExecutionContext, config: StudyConfig, dataset: Dataset, mlflow: ModelStore
) -> str:
    """Continue the trained detector on WIDER FACE; returns the folder of the tables."""
    return _run(context, dataset, mlflow, "finetuning", wider=_wider(config))


@dg.op
def compare_generators(
    context: dg.OpExecutionContext, config: GeneratorsConfig, dataset: Dataset, mlflow: ModelStore
) -> str:
    """Generate with several models and measure FID, KID and IS; returns the tables' folder."""
    return _run(
        context,
        dataset,
        mlflow,
        "generators",
        generators=Path(config.generators),
        reference=Path(config.reference),
        inception=Path(config.inception),
        reference_limit=config.reference_limit,
    )


class ArchitecturesConfig(dg.Config):
    """What is timed."""

    config: str = ""
    """YAML file, such as conf/studies/architectures.yaml; empty for its defaults."""


@dg.op
def measure_architectures(
    context: dg.OpExecutionContext,
    config: ArchitecturesConfig,
    dataset: Dataset,
    mlflow: ModelStore,
) -> str:
    """Count and time detectors on this machine; returns the folder of the tables."""
    given = Path(config.config) if config.config else None
    return _run(context, dataset, mlflow, "architectures", config=given)


class MemorisationConfig(dg.Config):
    """Whom to look for, and what is fine-tuned."""

    photographs: str
    """Folder of photographs named as RaFD's."""
    config: str
    """YAML file, such as conf/studies/memorisation.yaml."""


@dg.op
def study_memorisation(
    context: dg.OpExecutionContext,
    config: MemorisationConfig,
    dataset: Dataset,
    mlflow: ModelStore,
) -> str:
    """Fine-tune, generate and re-identify; returns the folder of the report."""
    given = {"photographs": Path(config.photographs), "config": Path(config.config)}
    return _run(context, dataset, mlflow, "memorisation", **given)


@dg.job(description="Table 7: the detector trained without one of its losses.")
def ablation_job() -> None:
    """The ablation alone."""
    ablate_losses()


@dg.job(description="The detector trained with three seeds: medians and ranges.")
def seeds_job() -> None:
    """The repetitions alone."""
    repeat_training()


@dg.job(description="Table 2: the detector trained on this dataset and on WIDER FACE.")
def dataset_comparison_job() -> None:
    """The comparison alone."""
    compare_datasets()


@dg.job(description="Table 5: the trained detector continued on WIDER FACE.")
def wider_finetuning_job() -> None:
    """The fine-tuning alone."""
    finetune_on_wider()


@dg.job(description="Table 6: image generators on the same prompts and poses.")
def generator_comparison_job() -> None:
    """The comparison alone."""
    compare_generators()


@dg.job(description="Table 8: what the published sizes and the project's detectors cost.")
def architectures_job() -> None:
    """The measurement alone."""
    measure_architectures()


@dg.job(description="Section 3.2: are people of a diffusion model's training set given back?")
def memorisation_job() -> None:
    """The study alone."""
    study_memorisation()


STUDY_JOBS = (
    ablation_job,
    seeds_job,
    dataset_comparison_job,
    wider_finetuning_job,
    generator_comparison_job,
    architectures_job,
    memorisation_job,
)
