"""Commands for configuration: effective values with their origins, and profile switching."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from dagster_project.params import LIKE, NAME, RUN, profile_params, with_name
from dagster_project.pipeline import Pipeline
from dagster_project.profiles import NOT_SET, Edit, Place, Profile, edits, leaves, read_profile
from ml.records.atomic import write_text
from ml.records.printing import print_json

_SHOWN_EDITS = 8
"""Edits that `vggheads status` lists; `vggheads config` marks all."""


def config(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Print the effective values, each with its meaning and origin."""
    params = pipeline.params
    profile = profile_of(pipeline)
    changed = {edit.place: edit for edit in edits(profile, params.written)} if profile else {}
    sections = options.stages or [RUN, *pipeline.assets]
    pipeline.require_stages("config", [section for section in sections if section != RUN])
    typed = {
        section: params.run if section == RUN else params.config(pipeline.assets[section])
        for section in sections
    }
    values = {
        section: {
            ".".join(place[1:]): {
                "value": value,
                "origin": _source(place, params.written, profile, changed),
                "meaning": " ".join(meaning.split()),
            }
            for place, value, meaning in _explained(config, (section,))
        }
        for section, config in typed.items()
    }
    if options.json:
        print_json({**edits_json(pipeline), "values": values})
        return 0
    print(f"profile {params.run.profile}; {len(changed)} edits in {NAME}")
    for section, explained in values.items():
        print(f"\n{section}:")
        for key, one in explained.items():
            print(f"  {key}: {one['value']!r}  [{one['origin']}]")
            if options.explain and one["meaning"]:
                print(f"      {one['meaning']}")
    removed = [e for e in changed.values() if e.value is NOT_SET and e.place[0] in sections]
    for edit in removed:
        print(f"\nonly in the profile: {edit}")
    return 0


def profile(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Write params.yaml, unless that would overwrite edits and --force is not given."""
    params = profile_params(pipeline.root, options.name, pipeline.assets.values())
    path = pipeline.root / NAME
    if path.exists() and not options.force:
        lost = _lost(pipeline)
        print("\n".join([*lost[:20], *([f"and {len(lost) - 20} more"] if lost[20:] else [])]))
        if lost and not _agreed():
            print(f"nothing was written; --force overwrites {NAME}", file=sys.stderr)
            return 1
    write_text(path, params.text)
    print(f"{NAME} now holds the profile '{options.name}'")
    return 0


def edit_lines(pipeline: Pipeline) -> list[str]:
    """Return the edits of params.yaml in readable form."""
    name = pipeline.params.run.profile
    profile = profile_of(pipeline)
    if profile is None:
        return [f"profile {name}, which conf/ does not hold"]
    found = edits(profile, pipeline.params.written)
    lines = [f"profile {name}" + (f" with {len(found)} edits in {NAME}:" if found else "")]
    lines += [f"  {edit}" for edit in found[:_SHOWN_EDITS]]
    if len(found) > _SHOWN_EDITS:
        lines.append(f"  and {len(found) - _SHOWN_EDITS} more: `vggheads config` shows them")
    return lines


def edits_json(pipeline: Pipeline) -> dict[str, Any]:
    """Return the profile and the edits of params.yaml as plain values.

    A value that only one of the two has is `not set` in the other; `edits` is None if conf/ holds
    no such profile.
    """
    profile = profile_of(pipeline)
    return {
        "profile": pipeline.params.run.profile,
        "edits": None if profile is None else [
            {"key": ".".join(edit.place), "value": edit.value, "profile": edit.profile_value}
            for edit in edits(profile, pipeline.params.written)
        ],
    }  # fmt: skip


def profile_of(pipeline: Pipeline) -> Profile | None:
    """Return the profile that params.yaml names, None if there is no such file."""
    name = pipeline.params.run.profile
    if not (pipeline.root / "conf" / f"{name}.yaml").exists():
        return None
    return with_name(read_profile(pipeline.root, name))


def _lost(pipeline: Pipeline) -> list[str]:
    """Return the edits that another profile would overwrite."""
    try:
        profile = profile_of(pipeline)
        if profile is None:
            return [f"{NAME} names '{pipeline.params.run.profile}', which conf/ does not hold"]
        found = edits(profile, pipeline.params.written)
    except ValueError as error:
        return [f"{NAME} cannot be read: {error}"]
    return [f"would overwrite {edit}" for edit in found]


def _agreed() -> bool:
    """Ask, on a terminal."""
    if not sys.stdin.isatty():
        return False
    return input(f"overwrite {NAME}? [y/N] ").strip().lower() in ("y", "yes")


def _explained(config: BaseModel, above: Place) -> Iterator[tuple[Place, Any, str]]:
    """Yield place, value and description of every value of a configuration."""
    plain = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _explained(value, (*above, name))
        else:
            yield (*above, name), plain[name], field.description or ""


def _source(
    place: Place, written: Mapping[str, Any], profile: Profile | None, changed: Mapping[Place, Edit]
) -> str:
    """Return a value's origin in words."""
    like = (written.get(place[0]) or {}).get(LIKE)
    for candidate in [place, *([(like, *place[1:])] if like else [])]:
        # A mapping may be replaced by a value, so a shorter place can decide as well.
        for length in range(len(candidate), 1, -1):
            spot = candidate[:length]
            if (edit := changed.get(spot)) and edit.value is not NOT_SET:
                return f"edit; profile: {edit.profile_value!r}"
            if dict(leaves(written)).get(spot, NOT_SET) is not NOT_SET:
                origin = profile.origins.get(spot, NAME) if profile else NAME
                return origin if candidate is place else f"{origin}, as {like}"
    return "default"
