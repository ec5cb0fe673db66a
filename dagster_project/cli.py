"""The command line: make the data and the models, look at them, use them.

This module imports nothing heavy: each command names its function as text, and `--help` is quick.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggheads.cli import HOME, add_library_commands, run

if TYPE_CHECKING:
    from dagster_project.pipeline import Pipeline

_SEE_DOCTOR = "`vggheads doctor` says what is damaged"
_ON_RECORDS = frozenset({"demo", "materialize", "check", "status", "sync", "ui"})
"""Commands that read or write what `check_quickly` looks at."""
_COMMANDS = "dagster_project.project_commands"


def main(arguments: Sequence[str] | None = None, pipeline: Pipeline | None = None) -> int:
    """Run a command.

    Args:
        arguments: those of the command line by default.
        pipeline: the project; this checkout by default.

    Returns:
        Exit status.
    """
    options = _parser().parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO if options.verbose else logging.ERROR)
    logging.basicConfig(handlers=[handler], format="%(levelname)s %(name)s: %(message)s")
    return run(lambda: _run(options, pipeline))


def _run(options: argparse.Namespace, pipeline: Pipeline | None) -> int:
    if pipeline is None:
        _check_place(HOME)
    command = options.command
    if not isinstance(command, str):
        return command(options)
    try:
        return _run_on_project(command, options, pipeline)
    except _unknown_samples() as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except _database_errors() as error:
        cause = str(error).splitlines()[0]
        machine = any(word in cause for word in ("disk is full", "no space", "readonly", "locked"))
        hint = "what is finished is kept, run again" if machine else _SEE_DOCTOR
        print(f"error: {cause}; {hint}", file=sys.stderr)
        return 2


def _run_on_project(command: str, options: argparse.Namespace, pipeline: Pipeline | None) -> int:
    from dagster_project.doctor import check_quickly
    from dagster_project.env import prepare
    from dagster_project.stage import load
    from dagster_project.stages import project

    pipeline = pipeline or project()
    home = prepare(pipeline.root)
    if options.name_of_command in _ON_RECORDS:
        check_quickly(pipeline, home)
    return load(command)(pipeline, options)


def _check_place(root: Path) -> None:
    """Refuse to work on one project from within another: its code and data would be mixed up.

    Raises:
        ValueError: the current folder lies in another checkout than this program.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        # A checkout in which no profile was written yet has no params.yaml.
        code_or_values = ("dagster_project", "params.yaml")
        if (folder / "dvc.yaml").is_file() and any((folder / n).exists() for n in code_or_values):
            if folder.resolve() != root.resolve():
                raise ValueError(
                    f"this program belongs to {root}, and you are in the project {folder};"
                    f" there, use `python -m dagster_project.cli` or install it with `make install`"
                )
            return


def _unknown_samples() -> type[Exception]:
    """Return what a search for a sample raises; imported only when something was raised."""
    from ml.records.lineage import UnknownSample

    return UnknownSample


def _database_errors() -> tuple[type[Exception], ...]:
    """Return what Dagster's and MLflow's stores raise; imported only when something was raised."""
    import sqlite3

    from sqlalchemy.exc import DatabaseError

    return (sqlite3.DatabaseError, DatabaseError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vggheads", description=__doc__.splitlines()[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="show what Dagster logs")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: str | Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command, name_of_command=name)
        return sub

    add_project_commands(add)
    add_library_commands(add)
    _add_dataset_commands(add)
    return parser


Add = Callable[[str, str, str], argparse.ArgumentParser]


def add_project_commands(add: Add) -> None:
    """Declare the commands on the project.

    Args:
        add: takes a command's name, its function as `module:name` and one line of help; returns
            its parser.
    """
    demo_parser = add(
        "demo", f"{_COMMANDS}:demo", "run the whole pipeline: only what is not up to date"
    )
    demo_parser.add_argument("--force", action="store_true", help="make everything again")
    make = add(
        "materialize",
        f"{_COMMANDS}:materialize",
        "make one stage, check it, record it in dvc.lock",
    )
    make.add_argument("stage", metavar="STAGE")
    make.add_argument("--shard", help="only this shard, such as shard-00003")
    make.add_argument("--force", action="store_true", help="make again what is finished")
    make.add_argument(
        "--upstream", action="store_true", help="make what it depends on too, where not up to date"
    )
    check = add("check", f"{_COMMANDS}:recheck", "run the checks on the data on disk, make nothing")
    check.add_argument("stages", nargs="*", metavar="STAGE", help="all by default")
    add("status", f"{_COMMANDS}:status", "show which stages are up to date")
    trace = add(
        "lineage",
        f"{_COMMANDS}:lineage",
        "show where an image comes from and what was decided about it",
    )
    trace.add_argument("sample", metavar="SAMPLE", help="an image's id, such as image-00003-00012")
    ahead = add(
        "preflight", f"{_COMMANDS}:preflight", "look at every model, file and source before a run"
    )
    ahead.add_argument("stages", nargs="*", metavar="STAGE", help="all by default")
    ahead.add_argument("--json", action="store_true", help="print a report that `plan` reads")
    ahead.add_argument(
        "--table", action="store_true", help="only print what research and open need, in Markdown"
    )
    add("sync", f"{_COMMANDS}:sync", "report to Dagster the data that dvc.lock records")
    values = "dagster_project.config_commands"
    config = add("config", f"{values}:config", "show all values and where each comes from")
    config.add_argument("stages", nargs="*", metavar="STAGE", help="all by default")
    config.add_argument("--explain", action="store_true", help="say what each value means")
    profile = add("profile", f"{values}:profile", "write params.yaml from conf/NAME.yaml")
    profile.add_argument("name", metavar="NAME")
    profile.add_argument("--force", action="store_true", help="overwrite edits")
    compare = add("compare", f"{_COMMANDS}:compare", "show what differs between two trainings")
    for which in ("first", "second"):
        compare.add_argument(which, metavar="RUN", help="an MLflow run's id, its beginning or name")
    compare.add_argument("--json", action="store_true", help="for scripts")
    ui = add("ui", f"{_COMMANDS}:ui", "serve Dagster, MLflow, and reports with Data Docs")
    ui.add_argument("--port", type=int, default=3000, help="of Dagster (%(default)s)")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="of MLflow (%(default)s)")
    ui.add_argument("--reports-port", type=int, default=3001, help="of reports (%(default)s)")
    doctor = add(
        "doctor", f"{_COMMANDS}:doctor", "find damaged records: dvc.lock, locks, databases"
    )
    doctor.add_argument("--repair", action="store_true", help="move what is damaged aside")
    bench = add("bench", f"{_COMMANDS}:bench", "measure speed: all of benchmarks/, or those named")
    bench.add_argument("names", nargs="*", metavar="NAME", help="such as flame_layer")
    study = add(
        "study",
        "dagster_project.dataset_commands:study",
        "tables 2, 5, 6, 7 and memorisation: train or generate several times, compare",
    )
    study.add_argument("name", metavar="NAME", help="ablation, datasets, finetuning, ...")
    study.add_argument("--wider", type=Path, help="WIDER FACE, for datasets and finetuning")
    study.add_argument("--generators", type=Path, metavar="FILE", help="YAML: docs/benchmarks")
    study.add_argument("--reference", type=Path, metavar="IMAGES", help="real images")
    study.add_argument("--inception", type=Path, metavar="FILE", help="Inception's weights")
    study.add_argument("--photographs", type=Path, metavar="DIR", help="named as RaFD's")
    study.add_argument("--config", type=Path, metavar="FILE", help="YAML of memorisation")
    study.add_argument("--reference-limit", type=int, metavar="N", help="first N; paper: 1500")


def _add_dataset_commands(add: Add) -> None:
    """Declare the commands on the dataset; `add` as above."""
    data = "dagster_project.dataset_commands"
    out = add(
        "export-dataset", f"{data}:export_dataset", "write a copy of the dataset, if licences allow"
    )
    out.add_argument("format", help="official, coco, webdataset or huggingface")
    out.add_argument("target", type=Path)
    out.add_argument("--commercial", action="store_true", help="the copy is for commercial use")
    out.add_argument("--split", action="append", choices=("train", "val", "test"))
    out.add_argument(
        "--derive",
        action="append",
        default=[],
        metavar="WHAT",
        help="add landmarks, euler, rotation, part_boxes or vertices, computed from the parameters",
    )
    read = add(
        "import-official", f"{data}:import_official", "make our tables of the official release"
    )
    read.add_argument(
        "source", type=Path, nargs="+", help="unpacked release, its tars, or folders of them"
    )
    read.add_argument("target", type=Path, help="project folder to write data/ into")
    lacking = add(
        "check-release",
        f"{data}:check_release",
        "say what a copy of the official release lacks of what was published",
    )
    lacking.add_argument(
        "source", type=Path, nargs="+", help="unpacked release, its tars, or folders of them"
    )
    lacking.add_argument("--no-sums", action="store_true", help="do not read what MD5SUMS names")
    generate = add(
        "generate",
        "dagster_project.generating:generate",
        "render images of many people with ground truth into a folder, without the other stages",
    )
    generate.add_argument("--images", type=int, required=True, metavar="N")
    generate.add_argument("--size", default="640", metavar="PX", help="side, or WIDTHxHEIGHT; 640")
    generate.add_argument("--out", type=Path, required=True, metavar="DIR")
    generate.add_argument(
        "--world", type=Path, metavar="FILE", help="YAML laid over the profile: conf/worlds"
    )
    generate.add_argument("--seed", type=int, help="run.seed of params.yaml if left out")
    generate.add_argument("--workers", type=int, help="run.workers of params.yaml if left out")
    for name in ("depth", "normals", "segmentation", "instances", "uv", "pncc"):
        generate.add_argument(
            f"--{name}", dest="dense", action="append_const", const=name, default=[],
            help=f"write {name} of every pixel, and every head's pose and landmarks",
        )  # fmt: skip
    measure = add(
        "evaluate",
        "dagster_project.generating:evaluate",
        "measure a detector on all images of a folder that `generate` made",
    )
    measure.add_argument("data", type=Path, metavar="DIR")
    measure.add_argument("--model", type=Path, default=Path("data/trained_model"), metavar="DIR")
    measure.add_argument("--name", default="evaluation", help="folder in DIR/data for the report")
    add("licences", f"{data}:licences", "show what results of the active profile may be used for")
    to_label = add("label-export", f"{data}:label_export", "write images for Label Studio and CVAT")
    to_label.add_argument("target", type=Path)
    to_label.add_argument("--count", type=int, default=200)
    to_label.add_argument("--worst", type=float, default=0.5, help="fraction of worst agreement")
    to_label.add_argument(
        "--first",
        action="store_true",
        help="choose from the images alone, as without verdicts: evenly by people and size",
    )
    to_label.add_argument(
        "--boxes",
        choices=("poses", "faces", "none"),
        help="first round: where boxes to correct come from; faces: filtered_dataset.face_check",
    )
    labelled = add(
        "label-import", f"{data}:label_import", "check a labelling tool's file and take it over"
    )
    labelled.add_argument("file", type=Path)
    labelled.add_argument(
        "--name", help="what the copy in labels/ is called; the file's own name if left out"
    )
    labelled.add_argument(
        "--onto",
        action="append",
        default=[],
        metavar="NAME",
        help="an earlier round in labels/ to add this one to",
    )
    labelled.add_argument(
        "--label", action="append", default=[], metavar="NAME", help="a class that means a head"
    )
    labelled.add_argument(
        "--ignore", action="append", default=[], metavar="NAME", help="a class that is no head"
    )
    own = add(
        "fine-tune",
        f"{data}:fine_tune",
        "label your own boxes with a FLAME teacher, train on them and measure (profile finetune)",
    )
    own.add_argument("images", type=Path, help="folder of your images")
    own.add_argument("boxes", type=Path, help="their boxes, COCO detection JSON")
    own.add_argument(
        "--label", action="append", metavar="NAME", help="a category that means a head; head"
    )
    index = add(
        "identity-index", f"{data}:identity_index", "embed faces that must not appear in images"
    )
    index.add_argument("folder", type=Path, help="images; those of a subfolder show one person")
    index.add_argument(
        "--identities", type=Path, help="lines of image and person, such as identity_CelebA.txt"
    )
    index.add_argument(
        "--target",
        type=float,
        default=0.01,
        help="fraction of strangers that may be taken for a person of the index",
    )
    matched = add(
        "identity-pairs",
        f"{data}:identity_pairs",
        "show removed images beside the known faces they resemble; never leaves this machine",
    )
    matched.add_argument("folder", type=Path, help="the folder that the index was made of")
    matched.add_argument("--count", type=int, default=48)
    down = add(
        "takedown", f"{data}:takedown", "remove images or sources from everything, and prove it"
    )
    down.add_argument("--sample", action="append", default=[], help="id of an image")
    down.add_argument("--source", action="append", default=[], help="id of a pose")
    accept = add(
        "accept-statistics",
        f"{data}:accept_statistics",
        "print all statistics with their bounds, and make them what drift is told from",
    )
    accept.add_argument("--show", action="store_true", help="print them, accept nothing")
    costs = add(
        "plan", f"{data}:plan", "hours and storage of a larger dataset, from this project's runs"
    )
    costs.add_argument("--images", type=int, required=True)
    costs.add_argument("--hour-price", type=float, default=0.0)
    costs.add_argument(
        "--measured",
        type=Path,
        help="what `preflight --json` printed, or JSON: stage -> seconds_per_image, device, batch; "
        "then stages that were never made are planned too",
    )


if __name__ == "__main__":
    sys.exit(main())
