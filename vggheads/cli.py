"""The `vggheads` command: library commands everywhere, project commands in a checkout.

Importing this module and declaring the library's commands loads no heavy module.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ml.benchmarks import cli as benchmarks
from ml.inference import cli as inference
from ml.records.files import is_environment
from vggheads.commands import CommandLine

HOME: Final = Path(__file__).resolve().parents[1]
"""Root of the checkout, or the folder in which the package is installed."""
_EXTRAS: Final = {
    "gradio": "app",
    "av": "video",
    "shtab": "completion",
    "s3fs": "s3",
    "aiohttp": "s3",
    **dict.fromkeys(("onnx", "onnxruntime", "numba", "scipy", "trimesh", "PIL"), "predict"),
}
"""Module -> the extra that installs it; every other module belongs to `pipeline`."""
_BROKEN_PIPE: Final = 128 + 13
"""Exit status that a shell reports for a command terminated by SIGPIPE."""
RUN_AGAIN: Final = "finished work is preserved; run the command again"
NO_MEMORY: Final = (
    "no memory is left: end other programs, use fewer workers (run.workers in params.yaml) or "
    f"smaller batches, or raise the limit (ulimit -v); {RUN_AGAIN}"
)
LACKS_MEMORY: Final = re.compile(
    r"(?m)^[\w.]*MemoryError\b|failed to map segment|annot allocate memory"
    r"|SystemError: error return without exception set"
)
"""Errors of a process without memory: as Python, numpy and torch call them, in the words of the
loader of libraries and of the system, and of code in C that loses the error on its way."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: any command in a checkout, library commands in an installed package.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    if (HOME / "dagster_project" / "cli.py").is_file():
        # Imported by name: an installed library has no orchestrator.
        return importlib.import_module("dagster_project.cli").main(arguments)
    return library_main(arguments)


def library_main(arguments: Sequence[str] | None = None) -> int:
    """Run a library command; explain where the project commands are available.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    line = CommandLine(
        "Detect 3D heads in images and evaluate detectors.",
        "A checkout of the project provides further commands: demo, status, ui and others.",
    )
    add_library_commands(line.add)
    line.add_completion()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in line.names:
        return run(lambda: _refuse(given[0], line.names))
    return run(lambda: _parsed(line, given))


def _parsed(line: CommandLine, given: Sequence[str]) -> int:
    """Parse, which fails if a file that is named is missing, and run the command."""
    options = line.parse(given)
    status: int = options.command(options)
    return status


def add_library_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the commands that need no project.

    Args:
        add: takes a command's name, function and one line of help; returns its parser.
    """
    inference.add_commands(add)
    benchmarks.add_commands(add)


def run(command: Callable[[], int]) -> int:
    """Run a command and report expected errors as a single line on stderr.

    Args:
        command: returns an exit status.

    Returns:
        Exit status.
    """
    try:
        status = command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The consumer, such as `head`, closed the pipe. Redirect stdout, so that Python does not
        # flush its buffer into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("ml", "vggheads"):
            raise
        print(f"error: {_how_to_install(error.name)}", file=sys.stderr)
        return 2
    except (MemoryError, ImportError, SystemError) as error:
        if not _lacks_memory(error):
            raise
        print(f"error: {NO_MEMORY}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_environment(error):
            raise
        print(f"error: {error}; {RUN_AGAIN}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the command again to resume", file=sys.stderr)
        return 130
    return status


def _lacks_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that led to it, is that of a process without memory."""
    while error is not None:
        if LACKS_MEMORY.search(f"{type(error).__name__}: {error}"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _how_to_install(module: str) -> str:
    extra = _EXTRAS.get(module.split(".")[0], "pipeline")
    return f"this command needs the package {module}: pip install 'vggheads[{extra}]'"


def _refuse(command: str, known: Sequence[str]) -> int:
    """Say where a command of the project is to be had.

    Raises:
        ValueError: always.
    """
    where = f"and {Path.cwd()} is in none; get a checkout of vggheads, run `make install` in it"
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            where = f"such as {folder}; run `make install` there"
            break
    raise ValueError(
        f"{command} is none of the library's commands ({', '.join(known)}); those of a project "
        f"work on a folder with dvc.yaml and params.yaml, {where}, then .venv/bin/vggheads "
        f"{command}"
    )


if __name__ == "__main__":
    sys.exit(main())
