"""Commands of the library: predict, export, import-weights, head models in and out, app.

Everything heavy is imported when a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml.inference.options import DRAW_METHODS, FORMATS, STREAMS, UNITS, UnusableModel
from ml.inference.output_folder import OutputFolder
from ml.inference.ports import not_free
from ml.records.files import existing
from ml.records.remote import located
from ml.records.scores import OPERATING_SCORE

DEFAULT_CHECKPOINT = "data/trained_model"
Run = Callable[[argparse.Namespace], int]
Add = Callable[[str, Run, str], argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Declare the commands.

    Args:
        add: takes a command's name, function and one line of help; returns its parser.
    """
    _add_predict(add("predict", predict, "detect heads in images, folders, videos or streams"))
    export_parser = add("export", export, "export a detector to ONNX, TorchScript or safetensors")
    export_parser.add_argument("output", type=Path, metavar="FILE_OR_FOLDER")
    export_parser.add_argument(
        "--format",
        choices=("onnx", "torchscript", "safetensors"),
        help="default: from the suffix (.onnx, .trcd, .pt); a folder is written as safetensors",
    )
    _add_checkpoint(export_parser)
    weights = add("import-weights", import_weights, "convert published weights to a detector")
    weights.add_argument("file", type=existing, metavar="FILE", help=".trcd, .pth or .pt")
    weights.add_argument("output", type=Path, metavar="FOLDER")
    flame = add("import-flame", import_flame, "convert FLAME's files to a head model")
    flame.add_argument(
        "file", type=existing, metavar="MODEL.pkl", help="FLAME model, such as generic_model.pkl"
    )
    flame.add_argument(
        "--landmarks", type=existing, required=True, help="landmark_embedding.npy, or FLAME's .pkl"
    )
    flame.add_argument(
        "--contour", type=existing, help="flame_dynamic_embedding.npy, with a .pkl embedding"
    )
    flame.add_argument(
        "--masks", type=existing, help="FLAME_masks.pkl: regions such as face and ears"
    )
    flame.add_argument(
        "--indices",
        type=existing,
        action="append",
        default=[],
        metavar="FILE.npy",
        help="published vertex indices, or a folder of keypoints; may be repeated",
    )
    flame.add_argument("--output", type=Path, default=Path("head_model.npz"), metavar="FILE.npz")
    own = add("export-head-model", export_head_model, "write a head model in FLAME's file format")
    own.add_argument("output", type=Path, metavar="FOLDER")
    own.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    own.add_argument(
        "--images", action="store_true", help="write images of the model and its components, too"
    )
    page = add("app", app, "serve a web page for trying the detector on images")
    _add_detector(page)
    page.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    page.add_argument("--port", type=int, default=7860, help="(%(default)s)")


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path(DEFAULT_CHECKPOINT),
        help="folder of a trained model, an exported file or published weights (%(default)s)",
    )


def _add_detector(parser: argparse.ArgumentParser) -> None:
    _add_checkpoint(parser)
    parser.add_argument(
        "--head-model", type=existing, help="head_model.npz (default: next to the model)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--runtime", default="torch", choices=("torch", "onnxruntime"))
    parser.add_argument(
        "--score",
        type=float,
        metavar="S",
        help=f"score threshold (default: {OPERATING_SCORE}, or the model's where higher)",
    )
    parser.add_argument(
        "--iou", type=float, metavar="I", help="IoU threshold of NMS (default: the model's)"
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--flip-test", action="store_true", help="average with the mirrored image; doubles the time"
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="image, folder, video, camera index, stream such as rtsp://host/path, or address of "
        "images such as s3://bucket/folder or https://host/image.jpg",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("predictions"),
        metavar="FOLDER",
        help="output folder; results of an earlier run are replaced (%(default)s)",
    )
    _add_detector(parser)
    parser.add_argument(
        "--draw",
        nargs="?",
        const="full",
        choices=DRAW_METHODS,
        help="also write visualisations (default style: full, meshes and boxes)",
    )
    parser.add_argument(
        "--meshes",
        nargs="*",
        default=(),
        choices=FORMATS,
        help="also write the mesh of every head (default: both formats)",
    )
    parser.add_argument("--unit", default="m", choices=UNITS, help="unit of meshes (%(default)s)")
    parser.add_argument("--pncc", action="store_true", help="also write PNCC maps")
    parser.add_argument(
        "--crops",
        type=int,
        metavar="PX",
        help="also write upright head crops of this size; 0: native size",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="stop a camera or stream after N frames"
    )
    parser.add_argument(
        "--tracks",
        action="store_true",
        help="track heads through videos: ids, one shape per person, smoothed poses",
    )


def _detector(options: argparse.Namespace) -> Any:
    from ml.inference.detector import HeadDetector

    return HeadDetector(
        options.checkpoint,
        head_model=options.head_model,
        device=options.device,
        runtime=options.runtime,
        score_threshold=options.score,
        iou_threshold=options.iou,
        batch_size=options.batch_size,
        flip_test=options.flip_test,
    )


def predict(options: argparse.Namespace) -> int:
    """Find heads and write JSON, and drawings and meshes if they are asked for.

    Missing inputs are reported before heavy imports.
    """
    _check_range(options, "frames", 1)
    _check_range(options, "crops", 0)
    files = [located(text) for text in options.sources if not _may_be_live(text)]
    output = OutputFolder(options.output)
    output.check_sources(files)
    output.check_writable()
    _require_detector(options)
    # Without torch, which takes most of a short run.
    from ml.inference.live import live_source
    from ml.inference.sources import require_images

    for folder in files:
        if isinstance(folder, Path) and folder.is_dir():
            require_images(folder, options.output)
    from ml.inference.writing import ResultWriter

    writer = ResultWriter(
        options.output,
        draw=options.draw,
        # The option alone, without a form, means all of them; left out, it is an empty tuple.
        meshes=FORMATS if options.meshes == [] else options.meshes,
        unit=options.unit,
        pncc=options.pncc,
        crops=options.crops,
        frames=options.frames,
        tracks=options.tracks,
    )
    sources = [live_source(text) or located(text) for text in options.sources]
    summary = writer.write_all(_detector(options), sources)
    print(summary)
    return 1 if summary.excluded else 0


def _may_be_live(text: str) -> bool:
    """Return whether a source may be a camera or a stream; `live_source` decides."""
    scheme, separator, _ = text.partition("://")
    if separator:
        return scheme.lower() in STREAMS
    return text.isdecimal() and not Path(text).exists()


def _check_range(
    options: argparse.Namespace, name: str, least: float, most: float | None = None
) -> None:
    """Check a number of the command line, before the imports that using it takes.

    Raises:
        ValueError: it is given, and below or above its bounds.
    """
    value = getattr(options, name)
    if value is None or (least <= value and (most is None or value <= most)):
        return
    option = f"--{name.replace('_', '-')}"
    bounds = f"at least {least}" if most is None else f"{least} to {most}"
    raise ValueError(f"{option}: expected {bounds}, got {value}")


def _require_detector(options: argparse.Namespace) -> None:
    """Check what can be checked of a detector's options without loading it.

    Raises:
        UnusableModel: there is no checkpoint.
        ValueError: a number is out of its range.
    """
    _check_range(options, "score", 0, 1)
    _check_range(options, "iou", 0, 1)
    _check_range(options, "batch_size", 1)
    _require(options.checkpoint)


def _require(checkpoint: Path) -> None:
    """Check that a checkpoint exists, and that a folder is that of a model.

    Raises:
        UnusableModel: neither a file nor a folder, or one without the description of a model.
    """
    if not checkpoint.exists():
        raise UnusableModel(
            f"{checkpoint}: no such file or folder; name a model with --checkpoint, or train one: "
            "`vggheads demo`"
        )
    if checkpoint.is_dir() and not (checkpoint / "config.json").exists():
        raise UnusableModel(
            f"{checkpoint / 'config.json'}: no such file; is this the folder of a trained model?"
        )


def export(options: argparse.Namespace) -> int:
    """Write a detector in another format."""
    _require(options.checkpoint)
    from ml.inference.exporting import export_detector, format_of

    form = options.format or format_of(options.output)
    export_detector(options.checkpoint, options.output, form)
    print(f"{options.output}: {form}, fused")
    return 0


def import_weights(options: argparse.Namespace) -> int:
    """Convert published weights to a model folder."""
    from ml.inference.loading import read_detector, save_detector

    stored = read_detector(options.file)
    save_detector(
        options.output,
        stored.network,
        stored.image_size,
        stored.postprocessing,
        stored.description["head_model_sha256"],
        stored.description["training"],
    )
    print(f"{options.output}: detector of size {stored.network.config.name}")
    print("vertices need the FLAME file that the weights were trained with: vggheads import-flame")
    return 0


def import_flame(options: argparse.Namespace) -> int:
    """Convert FLAME's files to a head model."""
    from ml.flame.flame_file import head_model_from_flame

    model = head_model_from_flame(
        options.file, options.landmarks, options.masks, options.contour, options.indices
    )
    model.save(options.output)
    regions = ", ".join(sorted(model.regions))
    print(f"{options.output}: head model {model.sha256[:12]}, regions {regions}")
    print(model.source)
    print("its licence is the file's: do not publish it")
    return 0


def export_head_model(options: argparse.Namespace) -> int:
    """Write the open head model, which is free of FLAME's licence, with its licence card."""
    from ml.flame.export import write_head_model
    from ml.flame.open_head import build_open_head

    model = build_open_head(options.seed)
    for path in write_head_model(model, options.output, options.images):
        print(path)
    return 0


def app(options: argparse.Namespace) -> int:
    """Serve the demo page."""
    _require_detector(options)
    _check_range(options, "port", 1, 65535)
    if reason := not_free(options.host, options.port):
        raise ValueError(
            f"app: cannot listen on {options.host}:{options.port} ({reason}); choose another port "
            "with --port"
        )
    from ml.inference.app import serve

    serve(_detector(options), options.host, options.port)
    return 0
