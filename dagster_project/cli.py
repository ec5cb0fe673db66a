"""Run the VGGHeads pipeline, inspect its data and use its models.

Heavy modules are imported by the command that needs them, so that `--help` responds quickly: each
command refers to its function by name.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml.records.files import existing
from ml.records.printing import add_json_option
from ml.training.processes import launched
from vggheads.cli import HOME, RUN_AGAIN, add_library_commands, run
from vggheads.commands import CommandLine

if TYPE_CHECKING:
    from dagster_project.pipeline import Pipeline

_SEE_DOCTOR = "run `vggheads doctor` to find what is damaged"
_ON_RECORDS = frozenset({"demo", "materialize", "check", "status", "sync", "ui"})
"""Commands that read or write the files that `check_quickly` validates."""
LEAST_ADDRESS_SPACE = 1 << 30
"""Bytes. `status` maps 0.57 GB; with a limit of 0.6 GB, `materialize` never came to an end."""
_COMMANDS = "dagster_project.project_commands"


def main(arguments: Sequence[str] | None = None, pipeline: Pipeline | None = None) -> int:
    """Run a command.

    Args:
        arguments: those of the command line by default.
        pipeline: the project; this checkout by default.

    Returns:
        Exit status.
    """
    return run(lambda: _run(arguments, pipeline))


def _run(arguments: Sequence[str] | None, pipeline: Pipeline | None) -> int:
    options = _command_line().parse(arguments)
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO if options.verbose else logging.ERROR)
    logging.basicConfig(handlers=[handler], format="%(levelname)s %(name)s: %(message)s")
    if options.verbose:
        logging.getLogger("ml").setLevel(logging.INFO)
    if pipeline is None:
        _check_place(HOME)
    command = options.command
    if not isinstance(command, str):
        return command(options)
    try:
        _check_address_space()
        return _run_on_project(command, options, pipeline)
    except (MemoryError, ImportError, SystemError):
        # Reported by `run`: out of memory, no further modules may be imported below.
        raise
    except _named_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _database_errors() as error:
        cause = str(error).splitlines()[0]
        machine = any(word in cause for word in ("disk is full", "no space", "readonly", "locked"))
        hint = RUN_AGAIN if machine else _SEE_DOCTOR
        print(f"error: {cause}; {hint}", file=sys.stderr)
        return 2


def _check_address_space() -> None:
    """Refuse a limit within which the libraries cannot be loaded.

    OpenBLAS, which numpy and scipy load, does not fail there: it tries for ever.

    Raises:
        MemoryError: the address space of this process is limited to less.
    """
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise MemoryError(f"{limit} bytes of address space, {LEAST_ADDRESS_SPACE} are needed")


def _run_on_project(command: str, options: argparse.Namespace, pipeline: Pipeline | None) -> int:
    from dagster_project.doctor import check_quickly
    from dagster_project.env import prepare
    from dagster_project.stage import load
    from dagster_project.stages import project

    pipeline = pipeline or project()
    if (launch := launched()) is not None:
        from dagster_project.followers import follow, followed_stage

        if (stage := followed_stage(pipeline, options, launch)) is not None:
            return follow(pipeline, stage, launch, force=options.force)
    home = prepare(pipeline.root)
    if options.name_of_command in _ON_RECORDS:
        check_quickly(pipeline, home)
    return load(command)(pipeline, options)


def _check_place(root: Path) -> None:
    """Refuse to run when the current folder belongs to another checkout than the program.

    Raises:
        ValueError: the current folder is inside another checkout than this program.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        # A checkout has no params.yaml until a profile is written.
        code_or_values = ("dagster_project", "params.yaml")
        if (folder / "dvc.yaml").is_file() and any((folder / n).exists() for n in code_or_values):
            if folder.resolve() != root.resolve():
                raise ValueError(
                    f"this program is installed from {root}, but the current folder belongs to"
                    f" the project {folder}; run `make install` there, or use"
                    f" `python -m dagster_project.cli`"
                )
            return


def _named_errors() -> tuple[type[Exception], ...]:
    """Return exceptions whose text says what to do; imported only after an exception."""
    from ml.records.lineage import UnknownSample
    from ml.training.tracking import TrackingUnavailable

    return (UnknownSample, TrackingUnavailable)


def _database_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of Dagster's and MLflow's databases; imported only after one."""
    import sqlite3

    from sqlalchemy.exc import DatabaseError

    return (sqlite3.DatabaseError, DatabaseError)


def _command_line() -> CommandLine:
    line = CommandLine(__doc__.splitlines()[0])
    line.parser.add_argument("-v", "--verbose", action="store_true", help="show log messages")
    add_project_commands(line.add)
    add_library_commands(line.add)
    _add_dataset_commands(line.add)
    line.add_completion(_stages)
    return line


def _stages() -> dict[str, list[str]]:
    """Return the values of the argument STAGE."""
    from dagster_project.stages import STAGES

    return {"STAGE": list(STAGES)}


Add = Callable[[str, str, str], argparse.ArgumentParser]


def add_project_commands(add: Add) -> None:
    """Declare the commands on the project.

    Args:
        add: takes a command's name, its function as `module:name` and one line of help; returns
            its parser.
    """
    demo_parser = add(
        "demo", f"{_COMMANDS}:demo", "run every stage of the pipeline that is not up to date"
    )
    demo_parser.add_argument("--force", action="store_true", help="rerun every stage")
    make = add(
        "materialize",
        f"{_COMMANDS}:materialize",
        "run one stage, check its results and record them in dvc.lock",
    )
    make.add_argument("stage", metavar="STAGE")
    make.add_argument("--shard", help="run a single shard, such as shard-00003")
    make.add_argument("--force", action="store_true", help="rerun finished work")
    make.add_argument(
        "--upstream", action="store_true", help="also run upstream stages that are not up to date"
    )
    check = add("check", f"{_COMMANDS}:recheck", "run the checks on existing data")
    check.add_argument("stages", nargs="*", metavar="STAGE", help="default: all stages")
    add_json_option(check)
    add_json_option(add("status", f"{_COMMANDS}:status", "show which stages are up to date"))
    trace = add(
        "lineage",
        f"{_COMMANDS}:lineage",
        "show the origin of an image and every decision about it",
    )
    trace.add_argument("sample", metavar="SAMPLE", help="image id, such as image-00003-00012")
    ahead = add(
        "preflight",
        f"{_COMMANDS}:preflight",
        "verify every model, file and data source before a run",
    )
    ahead.add_argument("stages", nargs="*", metavar="STAGE", help="default: all stages")
    add_json_option(ahead)
    ahead.add_argument(
        "--table", action="store_true", help="print the assets of research and open as Markdown"
    )
    add("sync", f"{_COMMANDS}:sync", "report the data recorded in dvc.lock to Dagster")
    values = "dagster_project.config_commands"
    config = add("config", f"{values}:config", "show the effective values and the origin of each")
    config.add_argument("stages", nargs="*", metavar="STAGE", help="default: all stages")
    config.add_argument("--explain", action="store_true", help="describe each value")
    add_json_option(config)
    profile = add(
        "profile", f"{values}:profile", "switch to profile conf/NAME.yaml: write params.yaml"
    )
    profile.add_argument("name", metavar="NAME")
    profile.add_argument("--force", action="store_true", help="overwrite edits of params.yaml")
    compare = add(
        "compare", f"{_COMMANDS}:compare", "compare the parameters and metrics of two trainings"
    )
    for which in ("first", "second"):
        compare.add_argument(
            which, metavar="RUN", help="id (or its prefix) or name of an MLflow run"
        )
    add_json_option(compare)
    ui = add("ui", f"{_COMMANDS}:ui", "serve Dagster, MLflow, reports and Data Docs")
    ui.add_argument("--port", type=int, default=3000, help="Dagster port (%(default)s)")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="MLflow port (%(default)s)")
    ui.add_argument("--reports-port", type=int, default=3001, help="reports port (%(default)s)")
    doctor = add(
        "doctor", f"{_COMMANDS}:doctor", "find a damaged dvc.lock, stale locks, damaged databases"
    )
    doctor.add_argument("--repair", action="store_true", help="move damaged files aside")
    add_json_option(doctor)
    bench = add("bench", f"{_COMMANDS}:bench", "run the speed benchmarks in benchmarks/")
    bench.add_argument("names", nargs="*", metavar="NAME", help="default: all; e.g. flame_layer")
    study = add(
        "study",
        "dagster_project.dataset_commands:study",
        "reproduce tables 2, 5 to 8, repeat the training, or study memorisation",
    )
    study.add_argument(
        "name",
        metavar="NAME",
        help="ablation, datasets, finetuning, seeds, generators, architectures or memorisation",
    )
    study.add_argument(
        "--wider", type=existing, metavar="DIR", help="WIDER FACE (datasets, finetuning)"
    )
    study.add_argument("--generators", type=existing, metavar="FILE", help="YAML (generators)")
    study.add_argument("--reference", type=existing, metavar="IMAGES", help="real reference images")
    study.add_argument("--inception", type=existing, metavar="FILE", help="Inception weights")
    study.add_argument(
        "--photographs", type=existing, metavar="DIR", help="images named as in RaFD"
    )
    study.add_argument(
        "--config", type=existing, metavar="FILE", help="YAML (architectures, memorisation)"
    )
    study.add_argument(
        "--reference-limit", type=int, metavar="N", help="use the first N references (paper: 1500)"
    )


def _add_dataset_commands(add: Add) -> None:
    """Declare the commands on the dataset; `add` as above."""
    data = "dagster_project.dataset_commands"
    out = add(
        "export-dataset", f"{data}:export_dataset", "export the dataset, if its licences allow"
    )
    out.add_argument("format", help="official, coco, webdataset or huggingface")
    out.add_argument("target", type=Path, help="folder to create")
    out.add_argument("--commercial", action="store_true", help="export for commercial use")
    out.add_argument(
        "--split", action="append", choices=("train", "val", "test"), help="default: all splits"
    )
    out.add_argument(
        "--derive",
        action="append",
        default=[],
        metavar="WHAT",
        help="add landmarks, euler, rotation, part_boxes or vertices, computed from the parameters",
    )
    read = add(
        "import-official", f"{data}:import_official", "convert the official release to this layout"
    )
    read.add_argument(
        "source", type=existing, nargs="+", help="unpacked release, its tars, or folders of them"
    )
    read.add_argument("target", type=Path, help="project folder in which to write data/")
    lacking = add(
        "check-release",
        f"{data}:check_release",
        "list the missing parts of a copy of the official release",
    )
    lacking.add_argument(
        "source", type=existing, nargs="+", help="unpacked release, its tars, or folders of them"
    )
    lacking.add_argument("--no-sums", action="store_true", help="skip the comparison with MD5SUMS")
    generate = add(
        "generate",
        "dagster_project.generating:generate",
        "render images with dense ground truth, without running the other stages",
    )
    generate.add_argument("--images", type=int, required=True, metavar="N", help="number of images")
    generate.add_argument(
        "--size", default="640", metavar="PX", help="side or WIDTHxHEIGHT in pixels (%(default)s)"
    )
    generate.add_argument("--output", type=Path, required=True, metavar="DIR", help="output folder")
    generate.add_argument(
        "--world",
        type=existing,
        metavar="FILE",
        help="YAML that overrides the profile, see conf/worlds",
    )
    generate.add_argument("--seed", type=int, help="default: run.seed of params.yaml")
    generate.add_argument("--workers", type=int, help="default: run.workers of params.yaml")
    for name in ("depth", "normals", "segmentation", "instances", "uv", "pncc"):
        generate.add_argument(
            f"--{name}", dest="dense", action="append_const", const=name, default=[],
            help=f"write per-pixel {name}, and the pose and landmarks of every head",
        )  # fmt: skip
    measure = add(
        "evaluate",
        "dagster_project.generating:evaluate",
        "evaluate a detector on all images of a folder written by `generate`",
    )
    measure.add_argument("data", type=existing, metavar="DIR", help="folder written by `generate`")
    measure.add_argument(
        "--model",
        type=existing,
        default=Path("data/trained_model"),
        metavar="DIR",
        help="(%(default)s)",
    )
    measure.add_argument(
        "--name", default="evaluation", help="report folder inside DIR/data (%(default)s)"
    )
    add("licences", f"{data}:licences", "show the permitted uses of the active profile's results")
    to_label = add("label-export", f"{data}:label_export", "export images to Label Studio and CVAT")
    to_label.add_argument("target", type=Path, help="folder to create")
    to_label.add_argument("--count", type=int, default=200, help="images (%(default)s)")
    to_label.add_argument(
        "--worst", type=float, default=0.5, help="fraction with the lowest agreement (%(default)s)"
    )
    to_label.add_argument(
        "--first",
        action="store_true",
        help="ignore verdicts; sample images evenly by number of people and size",
    )
    to_label.add_argument(
        "--boxes",
        choices=("poses", "faces", "none"),
        help="source of the initial boxes in a first round (faces: filtered_dataset.face_check)",
    )
    labelled = add(
        "label-import", f"{data}:label_import", "validate and import the file of a labelling tool"
    )
    labelled.add_argument("file", type=existing, help="JSON of Label Studio, or COCO")
    labelled.add_argument(
        "--name", help="name of the copy in labels/ (default: the name of the file)"
    )
    labelled.add_argument(
        "--onto",
        action="append",
        default=[],
        metavar="NAME",
        help="earlier labelling round in labels/ to merge with",
    )
    labelled.add_argument(
        "--label", action="append", default=[], metavar="NAME", help="class of a head"
    )
    labelled.add_argument(
        "--ignore", action="append", default=[], metavar="NAME", help="class to discard"
    )
    own = add(
        "fine-tune",
        f"{data}:fine_tune",
        "fine-tune on your images and head boxes with FLAME pseudo-labels (profile finetune)",
    )
    own.add_argument("images", type=existing, help="folder of images")
    own.add_argument("boxes", type=existing, help="boxes in COCO detection format")
    own.add_argument(
        "--label", action="append", metavar="NAME", help="category of a head (default: head)"
    )
    index = add(
        "identity-index",
        f"{data}:identity_index",
        "index faces that must not appear in the dataset",
    )
    index.add_argument("folder", type=existing, help="images, optionally one subfolder per person")
    index.add_argument(
        "--identities",
        type=existing,
        help="file of image-person pairs, such as identity_CelebA.txt",
    )
    index.add_argument(
        "--target",
        type=float,
        default=0.01,
        help="accepted false match rate (%(default)s)",
    )
    matched = add(
        "identity-pairs",
        f"{data}:identity_pairs",
        "show removed images next to the known faces they matched (a local page, never published)",
    )
    matched.add_argument("folder", type=existing, help="folder from which the index was built")
    matched.add_argument("--count", type=int, default=48, help="number of pairs (%(default)s)")
    down = add(
        "takedown", f"{data}:takedown", "remove images or sources from all data, and verify it"
    )
    down.add_argument("--sample", action="append", default=[], help="image id")
    down.add_argument("--source", action="append", default=[], help="pose id")
    accept = add(
        "accept-statistics",
        f"{data}:accept_statistics",
        "store the current statistics as the reference for drift detection",
    )
    accept.add_argument("--show", action="store_true", help="print statistics and bounds only")
    costs = add(
        "plan", f"{data}:plan", "estimate hours and storage of a larger dataset from recorded runs"
    )
    costs.add_argument("--images", type=int, required=True, help="planned number of images")
    costs.add_argument("--hour-price", type=float, default=0.0, help="price of a device hour")
    costs.add_argument(
        "--measured",
        type=existing,
        help="output of `preflight --json`, or JSON mapping a stage to seconds_per_image, device "
        "and batch; includes stages that never ran",
    )
    add_json_option(costs)


if __name__ == "__main__":
    sys.exit(main())
