"""Studies by name with their inputs, as called by jobs and the command."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from ml.records.config import Count, Fraction, StageConfig, parse_yaml, read_config
from ml.records.models import ModelRef, hash_model
from ml.records.workspace import Workspace
from ml.training.tracking import Tracker, mlflow_run

EXPERIMENT = "vggheads"
NAMES = (
    "ablation", "datasets", "finetuning", "seeds", "generators", "architectures", "memorisation",
)  # fmt: skip
Values = Mapping[str, Mapping[str, Any]]


def require_study(name: str) -> None:
    """Check that a study exists.

    Args:
        name: its name.

    Raises:
        ValueError: it is none of `NAMES`.
    """
    if name not in NAMES:
        raise ValueError(f"study: expected one of {', '.join(NAMES)}, got {name!r}")


def run_study(
    name: str,
    ws: Workspace,
    values: Values,
    runs: Path,
    *,
    wider: Path | None = None,
    generators: Path | None = None,
    reference: Path | None = None,
    inception: Path | None = None,
    reference_limit: int | None = None,
    photographs: Path | None = None,
    config: Path | None = None,
) -> Path:
    """Run a study.

    Args:
        name: one of `NAMES`.
        ws: the workspace.
        values: effective values, section -> key -> value.
        runs: folder of MLflow's store.
        wider: folder of WIDER FACE: `datasets` and `finetuning` need it.
        generators: YAML file of generators: `generators` needs this and the next two.
        reference: real images.
        inception: weights of the Inception network.
        reference_limit: read at most this many images of the reference; all by default.
        photographs: of known people, named as in RaFD; needed by `memorisation`.
        config: YAML file of `MemorisationConfig`, which `memorisation` needs, or of
            `ArchitecturesConfig`, whose defaults `architectures` takes without.

    Returns:
        The folder with the tables or the report.

    Raises:
        ValueError: no such study, or something that it needs is not named.
        FileNotFoundError: an input is missing.
    """

    @contextmanager
    def open_run(title: str, tags: Mapping[str, str]) -> Iterator[Tracker]:
        with mlflow_run(runs, EXPERIMENT, title, tags) as tracker:
            yield tracker

    require_study(name)
    if name == "generators":
        named = {"generators": generators, "reference": reference, "inception": inception}
        if lacking := [key for key, value in named.items() if value is None]:
            raise ValueError(f"generators: name {', '.join(lacking)}")
        assert generators
        assert reference
        assert inception
        return _compare_generators(
            ws, values, generators, reference, inception, reference_limit, open_run
        )
    if name == "architectures":
        return _architectures(ws, config, open_run)
    if name == "memorisation":
        if photographs is None or config is None:
            raise ValueError("memorisation: name the photographs and the configuration")
        return _memorisation(ws, values, photographs, config, open_run)
    from ml.studies import seeds, variants

    if name == "seeds":
        return seeds.run_seeds(ws, values, open_run)
    if name == "ablation":
        return variants.run_variants(name, ws, values, variants.ABLATION, open_run)
    if wider is None:
        raise ValueError(f"{name}: name the folder of WIDER FACE; docs/benchmarks/wider.md")
    dataset = _wider_dataset(ws, values, wider)
    chosen = (
        variants.dataset_variants(dataset)
        if name == "datasets"
        else variants.finetuning_variants(dataset, ws.stage_dir("trained_model"))
    )
    return variants.run_variants(name, ws, values, chosen, open_run)


def _wider_dataset(ws: Workspace, values: Values, wider: Path) -> Path:
    """Return WIDER FACE with pseudo-labels, made once for a content and a teacher."""
    from ml.records.atomic import atomic_folder
    from ml.stages.annotations import AnnotationsConfig
    from ml.studies.wider_dataset import make_wider_dataset

    config = read_config(AnnotationsConfig, "annotations", values["annotations"])
    folder = ws.stage_dir("studies") / "datasets" / wider_name(ws, wider, config)
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            make_wider_dataset(ws, wider, temporary, config)
    return folder


def wider_name(ws: Workspace, wider: Path, config: StageConfig) -> str:
    """Return the folder's name of WIDER FACE with pseudo-labels: of all that they follow from.

    Args:
        ws: the workspace; the head model must exist.
        wider: the folder of WIDER FACE.
        config: regressor of the labels, and the least size.
    """
    regressor = ws.stage_dir("flame_regressor")
    teacher = [
        hash_model(ws.stage_dir("head_model") / "head_model.npz"),
        hash_model(regressor) if regressor.is_dir() else "none",
        config.model_dump_json(),
    ]
    told = hashlib.sha256("\0".join(teacher).encode()).hexdigest()
    return f"wider-{hash_model(wider)[:12]}-{told[:12]}"


def _compare_generators(
    ws: Workspace,
    values: Values,
    generators: Path,
    reference: Path,
    inception: Path,
    reference_limit: int | None,
    open_run: Any,
) -> Path:
    from ml.benchmarks.generation_quality import Measuring
    from ml.benchmarks.inception import load_inception
    from ml.studies.generators import Reference, compare_generators

    return compare_generators(
        ws,
        values,
        read_generators(generators),
        Reference(reference, reference_limit),
        Measuring(load_inception(inception), seed=ws.seed),
        open_run,
    )


def _architectures(ws: Workspace, config: Path | None, open_run: Any) -> Path:
    from ml.studies.architectures import ArchitecturesConfig, measure_architectures

    text = config.read_text(encoding="utf-8") if config else ""
    content = parse_yaml(text, str(config)) if text else None
    chosen = read_config(ArchitecturesConfig, "architectures", content or {})
    return measure_architectures(ws, chosen, open_run)


class MemorisationConfig(StageConfig):
    """Which model is fine-tuned, and how; describer and face models are those of params.yaml."""

    base: ModelRef
    """Stable Diffusion 1.5 or XL."""
    steps: Count = 2000
    """Optimiser steps of each model."""
    batch_size: Count = 4
    """Photographs per step."""
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    """Learning rate of AdamW for the whole network; adapters use ten times as much."""
    rank: Count = 16
    """Rank of the adapters."""
    size: int = Field(default=512, ge=64, multiple_of=64, le=4096)
    """Side of photographs and images, px."""
    images: Count = 200
    """Images generated by each model."""
    sampling_steps: Count = 30
    """Denoising steps."""
    false_match_rate: Fraction = 1e-3
    """Accepted fraction of matching pairs of different people; determines the threshold."""
    device: str = "auto"
    """Device; `auto` selects the GPU if there is one."""


def _memorisation(
    ws: Workspace, values: Values, photographs: Path, config: Path, open_run: Any
) -> Path:
    from ml.filtering.identity import IdentityConfig, load_face_reader
    from ml.poses.backends import DESCRIBERS
    from ml.poses.describers import DescriberConfig
    from ml.records.exclusions import Exclusions
    from ml.records.models import choose_device, require
    from ml.studies.diffusion_tuning import TuningOptions
    from ml.studies.memorisation import MemorisationOptions, run_memorisation
    from ml.studies.rafd import read_photographs

    content = parse_yaml(config.read_text(encoding="utf-8"), str(config))
    chosen = read_config(MemorisationConfig, "memorisation", content or {})
    identity = read_config(
        IdentityConfig, "filtered_dataset.identity", values["filtered_dataset"]["identity"]
    )
    describing = read_config(
        DescriberConfig, "poses.images.describer", values["poses"]["images"]["describer"]
    )
    describer = DESCRIBERS[describing.backend](describing, ws.root)
    tuning = TuningOptions(
        "lora",
        chosen.steps,
        chosen.batch_size,
        chosen.learning_rate,
        chosen.rank,
        chosen.size,
        device=str(choose_device(chosen.device)),
        seed=ws.seed,
    )
    options = MemorisationOptions(
        tuning, chosen.images, chosen.sampling_steps, chosen.false_match_rate
    )
    exclusions = Exclusions("memorisation")
    folder = ws.stage_dir("studies") / "memorisation"
    run_memorisation(
        folder,
        read_photographs(photographs, exclusions),
        require(chosen.base, "base", "memorisation", ws.root),
        load_face_reader(identity, ws.root, chosen.device),
        lambda images: describer.describe(images, [1] * len(images)),
        options,
        open_run,
        exclusions,
    )
    return folder


def read_generators(path: Path) -> list[Any]:
    """Read which generators are compared.

    Args:
        path: YAML: name -> `images` (changes over that section of params.yaml) and `condition`.

    Returns:
        `ml.studies.generators.Generator` in the file's order.

    Raises:
        ValueError: the file has another form.
        FileNotFoundError: there is no such file.
    """
    from ml.studies.generators import Generator

    content = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    found = []
    for name, entry in (content if isinstance(content, dict) else {}).items():
        known = isinstance(entry, dict) and set(entry) <= {"images", "condition"}
        if not known or not isinstance(entry.get("images"), dict):
            raise ValueError(f"{path}: {name}: expected `images` (a section) and `condition`")
        found.append(Generator(str(name), entry["images"], str(entry.get("condition", ""))))
    if not found:
        raise ValueError(f"{path}: expected generators by name, got {type(content).__name__}")
    return found
