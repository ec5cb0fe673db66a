"""The command line on the toy project, as `dvc repro` calls it."""

import sys
from pathlib import Path

from toy_stages import toy_pipeline

from dagster_project.cli import main

if __name__ == "__main__":
    sys.exit(main(pipeline=toy_pipeline(Path(__file__).resolve().parent)))
