"""Screenshots of the first pages that one sees, for README and docs: `make figures`.

    python -m docs.figures --project . --figures lineage failing_check

Works on a copy of a finished demo, of which it falsifies one row so that a check fails, and drives
a Chromium without a window. Look at what it made before you commit it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from dagster_project.serve import lineage_address
from ml.records.shards import ShardReader
from ml.records.tables import CAPTIONS, IMAGES, TRUTH, read_table, write_table

if TYPE_CHECKING:
    from mlflow.entities import Run
    from playwright.sync_api import Page

ROOT: Final = Path(__file__).parents[1]
FIGURES_FOLDER: Final = ROOT / "docs" / "images"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
DETECTOR: Final = "trained_model"
SHARD: Final = "shard-00000"
"""The shard of which one caption is falsified."""
_LEFT_OUT: Final = (".git", ".venv", ".venv-*", "cache", "tmp", "__pycache__", "build", ".tmp-*")
_SIZE: Final[Any] = {"width": 1440, "height": 900}
_START_SECONDS: Final = 600
_PATIENCE_MS: Final = 240_000
"""How long a page may take: a busy machine needs minutes for MLflow's scripts."""
_SETTLE_MS: Final = 2500
"""Pages draw charts and images after they say that they are loaded."""


class NothingToShow(Exception):
    """The project does not contain what a figure shows; the message says how to make it."""


@dataclass(frozen=True)
class Site:
    """Where the pages are served.

    Attributes:
        root: the project folder that is shown.
        dagster: address of Dagster.
        mlflow: address of MLflow.
        reports: address of reports and Data Docs.
        app: address of the demo page.
    """

    root: Path
    dagster: str
    mlflow: str
    reports: str
    app: str


def lineage(page: Page, site: Site) -> None:
    """Show the assets of the pipeline in Dagster, as `vggheads ui` opens them."""
    page.goto(lineage_address(site.dagster))
    page.wait_for_selector("text=trained_model")
    page.keyboard.press("Escape")


def failing_check(page: Page, site: Site) -> None:
    """Show a critical check that fails, with shard, row and column."""
    page.goto(
        f"{site.dagster}/assets/captions?view=checks&checkDetail=caption_rules__of_their_poses"
    )
    page.wait_for_selector("text=Latest execution")


def mlflow_runs(page: Page, site: Site) -> None:
    """Show the trainings in MLflow, as charts."""
    page.goto(f"{site.mlflow}/{_runs_page(site)}&compareRunsMode=CHART")
    page.wait_for_selector("text=trained_model")
    _close_assistant(page)


def mlflow_compare(page: Page, site: Site) -> None:
    """Show two trainings of the same model side by side.

    Raises:
        NothingToShow: there are no two.
    """
    experiment, found = _finished_runs(site)
    runs = [run.info.run_id for run in comparable(found)]
    query = {"runs": runs, "experiments": [experiment]}
    chosen = "&".join(f"{name}={json.dumps(value)}" for name, value in query.items())
    page.goto(f"{site.mlflow}/#/compare-runs?{chosen}&workflowType=machine_learning")
    page.wait_for_selector("text=Run details")
    _close_assistant(page)
    # What differs: without the plot of one arbitrary metric, and without equal values.
    page.get_by_text("Visualizations", exact=True).click()
    for switch in page.get_by_role("switch").all():
        switch.click()
    page.get_by_text("Comparing 2 Runs").scroll_into_view_if_needed()


def data_docs(page: Page, site: Site) -> None:
    """Show our page of Great Expectations' results."""
    page.goto(f"{site.reports}/files/reports/data_docs/index.html")


def report(page: Page, site: Site) -> None:
    """Show the benchmark's report."""
    page.goto(f"{site.reports}/files/data/benchmark/report.html")


def app(page: Page, site: Site) -> None:
    """Show the demo page with an image in it."""
    page.goto(site.app)
    image: Any = {
        "name": "image.jpg",
        "mimeType": "image/jpeg",
        "buffer": _image_of_several(site.root),
    }
    page.set_input_files("input[type=file]", image)
    page.wait_for_selector("canvas")
    page.wait_for_timeout(4 * _SETTLE_MS)


FIGURES: Final[dict[str, tuple[str, Callable[[Page, Site], None]]]] = {
    "lineage": ("dagster_graph.png", lineage),
    "failing_check": ("dagster_checks.png", failing_check),
    "mlflow_runs": ("mlflow_runs.png", mlflow_runs),
    "mlflow_compare": ("mlflow_compare.png", mlflow_compare),
    "data_docs": ("data_docs.png", data_docs),
    "report": ("report.png", report),
    "app": ("app.jpg", app),
}
"""Name -> file in docs/images, and what brings a page to where it is photographed."""


def falsify(root: Path) -> None:
    """Give a caption the split of another pose: a fault that a critical check must name.

    Args:
        root: a copy of a project.
    """
    path = root / "data" / "captions" / f"{SHARD}.parquet"
    table = read_table(path, CAPTIONS)
    row = len(table) // 2
    table.loc[row, "split"] = "test" if table.loc[row, "split"] != "test" else "train"
    write_table(path, table, CAPTIONS)


def make(project: Path, names: Sequence[str], output: Path, browser: str) -> list[Path]:
    """Make screenshots of a finished project.

    A figure whose content is not there is left out; the reason, and the command that makes it, are
    printed last.

    Args:
        project: a checkout in which `make demo` has ended.
        names: keys of `FIGURES`.
        output: folder of the files.
        browser: path of a Chromium.

    Returns:
        The files.

    Raises:
        ValueError: the project has no finished benchmark.
        RuntimeError: a server did not start, or a page does not show what it should; the message
            names a screenshot of what it shows.
    """
    from playwright.sync_api import Error as PlaywrightError
    from playwright.sync_api import sync_playwright

    if not (project / "data" / "benchmark" / "report.html").exists():
        raise ValueError(f"figures: {project} has no data/benchmark/report.html; run `make demo`")
    made: list[Path] = []
    failed: list[str] = []
    skipped: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vggheads-figures-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        if "failing_check" in names:
            falsify(copy)
            # Says that it fails, which is what is wanted.
            _run(copy, "check", "captions").wait()
        with _served(copy) as site, sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for name in names:
                file, show = FIGURES[name]
                page = chromium.new_page(viewport=_SIZE, color_scheme="light")
                page.set_default_timeout(_PATIENCE_MS)
                output.mkdir(parents=True, exist_ok=True)
                try:
                    show(page, site)
                    page.wait_for_timeout(_SETTLE_MS)
                except NothingToShow as reason:
                    skipped.append(f"{output / file}: not made: {reason}")
                    page.close()
                    continue
                except PlaywrightError as error:
                    # What it shows instead says more than the error; the other pages are made.
                    page.screenshot(path=str(output / f"failed-{name}.png"))
                    failed.append(f"{output / f'failed-{name}.png'}: {error}")
                    continue
                kind: dict[str, Any] = {"quality": 88} if file.endswith(".jpg") else {}
                page.screenshot(path=str(output / file), **kind)
                page.close()
                made.append(output / file)
                print(output / file, flush=True)
            chromium.close()
    for told in skipped:
        print(told, flush=True)
    if failed:
        raise RuntimeError("figures: not as expected:\n" + "\n".join(failed))
    return made


def _close_assistant(page: Page) -> None:
    """Close the panel that MLflow opens on its first page."""
    button = page.get_by_role("button", name="Close", exact=True)
    if button.count():
        button.first.click()


@contextmanager
def _served(root: Path) -> Iterator[Site]:
    """Serve the pages of a project, on free ports."""
    ports = _free_ports(4)
    names = ("--port", "--mlflow-port", "--reports-port")
    options = [text for name, port in zip(names, ports, strict=False) for text in (name, str(port))]
    servers = [_run(root, "ui", *options), _run(root, "app", "--port", str(ports[3]))]
    site = Site(root, *(f"http://127.0.0.1:{port}" for port in ports))
    try:
        for address in (site.dagster, site.mlflow, site.reports, site.app):
            _wait_until_up(address, servers)
        yield site
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                # On a busy machine; another error must not be hidden by this one.
                server.kill()


def _run(root: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    environment["PYTHONPATH"] = str(root)
    command = [sys.executable, "-m", "dagster_project.cli", *words]
    return subprocess.Popen(command, cwd=root, env=environment)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_until_up(address: str, servers: Sequence[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if any(server.poll() is not None for server in servers):
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError(f"figures: nothing answers at {address}; what is above says why")


def comparable(runs: Sequence[Run]) -> list[Run]:
    """Return the two newest trainings of one model: of the detector, if two were benchmarked.

    Args:
        runs: finished runs, the newest first.

    Raises:
        NothingToShow: no model was trained twice.
    """
    kinds: dict[str, list[Run]] = {DETECTOR: []}
    for run in runs:
        if kind := run.data.tags.get("dvc.stage"):
            kinds.setdefault(kind, []).append(run)
    measured = [run for run in kinds[DETECTOR] if "benchmark/ap50" in run.data.metrics]
    for found in (measured, *kinds.values()):
        if len(found) > 1:
            return found[:2]
    raise NothingToShow(
        f"mlruns/ has {len(kinds[DETECTOR])} finished trainings of {DETECTOR}, and no other model "
        "was trained twice; `vggheads study seeds` trains the detector with two more seeds, then "
        "`python -m docs.figures --figures mlflow_compare` makes the figure"
    )


def _finished_runs(site: Site) -> tuple[str, list[Run]]:
    """Return the experiment and its finished runs, the newest first."""
    from mlflow import MlflowClient

    from dagster_project.resources import EXPERIMENT
    from ml.training.tracking import open_store

    uri, experiment = open_store(site.root / "mlruns", EXPERIMENT)
    return experiment, list(
        MlflowClient(uri).search_runs([experiment], "attributes.status = 'FINISHED'")
    )


def _runs_page(site: Site) -> str:
    return f"#/experiments/{_finished_runs(site)[0]}/runs?workflowType=machine_learning"


def _image_of_several(root: Path) -> bytes:
    """Return a held-out image of three large heads."""
    folder = root / "data"
    images, truth = (
        pd.concat(
            [read_table(p, spec) for p in sorted((folder / name).glob("shard-?????.parquet"))]
        )
        for name, spec in (("images", IMAGES), ("truth", TRUTH))
    )
    tested = images[images["split"] == "test"].set_index("sample_id")["shard"]
    truth = truth[truth["sample_id"].isin(tested.index)]
    size = pd.Series([box[2] for box in truth["bbox_xywh"]], truth["sample_id"].to_numpy())
    several = size.groupby(level=0).agg(["size", "min"])
    sample_id = str(several.loc[several["size"] == 3, "min"].idxmax())
    with ShardReader(folder / "images" / f"{tested[sample_id]}.tar") as shard:
        return shard.read(sample_id)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the figures that are named.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=ROOT, help="a finished demo (%(default)s)")
    parser.add_argument("--output", type=Path, default=FIGURES_FOLDER)
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    parser.add_argument("--browser", default=found, help="path of a Chromium (%(default)s)")
    options = parser.parse_args(arguments)
    if options.browser is None:
        parser.error(f"no {', '.join(BROWSERS)} is installed; name a Chromium with --browser")
    make(options.project, options.figures, options.output, options.browser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
