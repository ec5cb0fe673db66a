"""The preflight of this project: on demand, and before a run of a profile with outside models."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dagster_project.console import say
from dagster_project.env import prepare
from dagster_project.pipeline import Pipeline
from dagster_project.profiles import read_profile
from ml.preflight.report import Problem, Report
from ml.records.atomic import write_json
from ml.records.register import OWN_IMAGES, REGISTER

STAMPS: Final = "preflight.json"
"""In DAGSTER_HOME: stage -> what was checked when it passed or its problems were reported."""
_CHOICES: Final[dict[tuple[str, str], set[object]]] = {
    ("head_model", "source"): {"flame"},
    ("poses", "source"): {"folder", "webdataset"},
    ("labels", "source"): {"file"},
    ("released_dataset", "enabled"): {True},
}
_FILES: Final = {
    (stage, key)
    for stage in ("trained_model", "released_model")
    for key in ("initial_weights", "encoder_folder")
}


def look(pipeline: Pipeline, stages: Sequence[str] = ()) -> Report:
    """Verify the external requirements of stages.

    Args:
        pipeline: the project.
        stages: which; none given: all.

    Raises:
        ValueError: there is no such stage.
    """
    pipeline.require_stages("preflight", stages)
    # Imported here: `ensure` runs before every stage, and these take seconds.
    from ml.preflight.running import run_preflight

    # Images are tried at the size that the poses stage gives them, so its values always count.
    configs = {
        name: pipeline.params.config(pipeline.assets[name])
        for name in pipeline.graph
        if not stages or name in stages or (name == "poses" and "images" in stages)
    }
    report = run_preflight(pipeline.workspace(), configs)
    if stages:
        report.problems = [problem for problem in report.problems if problem.stage in stages]
    return report


def ensure(pipeline: Pipeline, stages: Sequence[str]) -> list[Problem]:
    """Check before a run what has changed since the last check, in a separate process.

    Everything of the profile is looked at and said; a profile without outside models costs the
    reading of params.yaml.

    Args:
        pipeline: the project.
        stages: stages of the run.

    Returns:
        The problems of these stages; the run must not start unless there are none.
    """
    values = pipeline.params.values
    outside = [name for name in pipeline.graph if needs_outside(name, values.get(name) or {})]
    if not set(outside) & set(stages):
        return []
    file = prepare(pipeline.root) / STAMPS
    stamps = _stamps(file)
    now = {name: _stamp(pipeline.root, name, values) for name in outside}
    changed = [name for name in outside if stamps.get(name) != now[name]]
    todo = [name for name in changed if name in stages or stamps.get(_reported(name)) != now[name]]
    if not todo:
        return []
    say(f"preflight: {', '.join(todo)}")
    problems = _in_own_process(pipeline, todo)
    for problem in problems:
        say(f"  {problem}")
    _remember(file, {name: now[name] for name in todo}, problems)
    return [problem for problem in problems if problem.stage in stages]


def remember(pipeline: Pipeline, stages: Sequence[str], problems: Sequence[Problem]) -> None:
    """Record an explicit check, so that the next run need not repeat it.

    Args:
        pipeline: the project.
        stages: what was looked at; none given: all.
        problems: problems found.
    """
    values = pipeline.params.values
    outside = [name for name in pipeline.graph if needs_outside(name, values.get(name) or {})]
    now = {n: _stamp(pipeline.root, n, values) for n in outside if not stages or n in stages}
    _remember(prepare(pipeline.root) / STAMPS, now, problems)


def needs_outside(stage: str, section: Mapping[str, Any]) -> bool:
    """Return whether a stage may need something that this project does not make.

    Args:
        stage: its name.
        section: its values, as params.yaml states them.
    """
    if stage == "released_dataset" and section.get("source_asset") == OWN_IMAGES:
        # `vggheads fine-tune` makes them, and is what runs this first.
        return False
    for (name, key), choices in _CHOICES.items():
        if stage == name and section.get(key) in choices:
            return True
    if section.get("enabled") is False:
        return False
    if any(stage == name and section.get(key) for name, key in _FILES):
        return True
    return any(
        "asset" in inner and (inner.get("path") or inner.get("hub_id"))
        for inner in _mappings(section)
    )


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list | tuple):
        for part in inner:
            yield from _mappings(part)


def _in_own_process(pipeline: Pipeline, stages: Sequence[str]) -> list[Problem]:
    """Check in a separate process, which frees the models' memory for the run's processes.

    Raises:
        RuntimeError: it did not end with a report.
    """
    command = [sys.executable, *pipeline.program, "preflight", "--json", *stages]
    done = subprocess.run(
        command, cwd=pipeline.root, stdout=subprocess.PIPE, text=True, check=False
    )
    try:
        return [Problem(**problem) for problem in json.loads(done.stdout)["problems"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(
            f"preflight ended with status {done.returncode} and no report; run `vggheads preflight`"
        ) from error


def _remember(file: Path, now: Mapping[str, str], problems: Sequence[Problem]) -> None:
    """Note stages with the stamps that they had, those with problems apart."""
    bad = {problem.stage for problem in problems}
    looked = {_reported(name) if name in bad else name: stamp for name, stamp in now.items()}
    write_json(file, {**_stamps(file), **looked})


def _reported(stage: str) -> str:
    return f"{stage}: reported"


def _stamps(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _stamp(root: Path, stage: str, values: Mapping[str, Any]) -> str:
    """Return a hash of a stage's values and of the sizes and times of the files that they name."""
    used = {name: values.get(name) for name in (stage, "run", "poses")}
    digest = hashlib.sha256(json.dumps(used, sort_keys=True, default=str).encode())
    for text in _texts(values.get(stage)):
        path = root / text
        if not text or not path.exists():
            continue
        for inner in [path, *(sorted(path.iterdir()) if path.is_dir() else [])]:
            status = inner.stat()
            digest.update(f"{inner}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "\n" not in value and len(value) < 512:
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def table(root: Path, profiles: Sequence[str] = ("research", "open", "official")) -> str:
    """Return the external files that profiles need, from the asset register, in Markdown.

    Args:
        root: the project folder, with conf/.
        profiles: their names.
    """
    users: dict[str, dict[str, list[str]]] = {}
    for profile in profiles:
        for stage, section in read_profile(root, profile).values.items():
            for asset in _assets(stage, section):
                stages = users.setdefault(asset, {}).setdefault(profile, [])
                if stage not in stages:
                    stages.append(stage)
    lines = [
        "| asset | needed by | files | MB | published at | licence |",
        "|---|---|---|---|---|---|",
    ]
    for entry in (entry for entry in REGISTER.values() if entry.name in users and entry.url):
        needed = "; ".join(f"{name}: {', '.join(st)}" for name, st in users[entry.name].items())
        size = f"{entry.size_bytes / 1e6:,.1f}" if entry.size_bytes else "not known"
        lines.append(
            f"| `{entry.name}` | {needed} | {entry.files or 'all'} | {size} | {entry.url} | "
            f"{entry.licence} |"
        )
    return "\n".join(lines) + "\n"


def _assets(stage: str, section: Any) -> Iterator[str]:
    from ml.preflight.parts import asset_of_weights

    if stage == "trained_model" and section.get("initial_weights"):
        yield asset_of_weights(str(section["initial_weights"]))
    for inner in _mappings(section):
        for key in ("asset", "source_asset"):
            if inner.get(key):
                yield str(inner[key])
