"""JSON on stdout: what the option `--json` of every command prints."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any


def add_json_option(parser: ArgumentParser) -> None:
    """Declare `--json`; the command then prints one JSON value on stdout, and nothing else.

    Args:
        parser: the command's.
    """
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def print_json(value: Any) -> None:
    """Print a value as JSON; what JSON does not know, such as a path, as its text."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
