"""Accounting between stages: every input is in the output or excluded, exactly once.

Ids are read from the tables of both stages, not from the counts that a stage gives of itself: those
are made by the code that is judged. A shard is an account of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

from pandas import DataFrame

from ml.quality.findings import findings

_SHARD_OF_ID = re.compile(r"-(\d{5})-\d{5}(?:-v\d+)?$")


def account(
    given: Iterable[str],
    kept: Iterable[str],
    excluded: Iterable[str],
    given_name: str,
    kept_name: str,
    forgiven: Collection[str] = (),
) -> DataFrame:
    """Compare what a stage was given with what it kept and what it excluded.

    Args:
        given: ids in the table that the stage read.
        kept: ids in the table that it wrote.
        excluded: ids of its exclusions; those of heads (`image#head`) do not count.
        given_name: what the first table is called.
        kept_name: what the second is called.
        forgiven: ids that may be missing, because they were taken down.

    Returns:
        One finding an id, in order: lost, from nowhere, kept and excluded, or more than once.
    """
    given_count, kept_count = Counter(map(str, given)), Counter(map(str, kept))
    excluded_ids = {str(name) for name in excluded if "#" not in str(name)}
    items = sorted(given_count.keys() | kept_count.keys() | excluded_ids)
    problems = []
    for item in items:
        problem = ""
        if given_count[item] > 1 or kept_count[item] > 1:
            where = given_name if given_count[item] > 1 else kept_name
            problem = f"{item} is in {where} more than once"
        elif not given_count[item]:
            where = kept_name if kept_count[item] else f"the exclusions of {kept_name}"
            problem = f"{item} is in {where} but was not in {given_name}"
        elif kept_count[item] and item in excluded_ids:
            problem = f"{item} is in {kept_name} and among its exclusions"
        elif not kept_count[item] and item not in excluded_ids and item not in forgiven:
            problem = f"{item} is lost: in {given_name}, neither in {kept_name} nor excluded"
        problems.append(problem)
    return findings(items, problems)


def belong(ids: Iterable[str], shard: str, table: str) -> DataFrame:
    """Return whether ids carry their shard's number, so that no two shards can hold the same one.

    Args:
        ids: of poses or images, `image-00003-00012`.
        shard: name of the shard that holds them.
        table: what the table is called.

    Returns:
        One finding an id.
    """
    number = shard.rsplit("-", 1)[-1]
    names = [str(name) for name in ids]
    problems = []
    for name in names:
        found = _SHARD_OF_ID.search(name)
        own = found.group(1) if found else "none"
        problems.append(
            "" if own == number else f"{name} is in {shard} of {table}, but its id belongs to {own}"
        )
    return findings(names, problems)


def people_listed(poses: DataFrame) -> DataFrame:
    """Return whether a pose lists as many people as it says it has.

    Args:
        poses: rows of POSES.

    Returns:
        One finding a pose.
    """
    listed = poses.groupby("pose_id", sort=False)["num_people"].agg(["size", "max"])
    problems = [
        "" if size == told else f"{pose} lists {size} of its {told} people"
        for pose, size, told in listed.itertuples(name=None)
    ]
    return findings(listed.index, problems)


def in_order(
    expected: Iterable[str], taken: Collection[str], what: str, least: int = 0
) -> DataFrame:
    """Return whether what was taken from an ordered row of ids is its beginning, without a gap.

    Args:
        expected: ids in the order in which they were to be taken, without those excluded.
        taken: ids that were taken.
        what: what they were taken for.
        least: how many were to be taken, if there are as many: a loss at the end leaves no gap.

    Returns:
        One finding per id that precedes the last one used, or is among the first `least`.
    """
    names, own = [str(name) for name in expected], {str(name) for name in taken}
    end = max((place + 1 for place, name in enumerate(names) if name in own), default=0)
    end = max(end, min(least, len(names)))
    problems = ["" if name in own else f"{name} is lost: {what} skip it" for name in names[:end]]
    return findings(names[:end], problems)


def marked(
    counts: dict[str, int], kept: int, excluded: int, unit: str, taken_down: int = 0
) -> DataFrame:
    """Return whether a stage's own counts are those of its files.

    Args:
        counts: `num_out` and `num_excluded`, as the stage reported them.
        kept: items in its table.
        excluded: items in its exclusions.
        unit: the shard.
        taken_down: ids that were taken down since, of any shard; so many may be missing.

    Returns:
        One finding.
    """
    problem = ""
    for name, number in (("num_out", kept), ("num_excluded", excluded)):
        missing = counts.get(name, -1) - number
        if not 0 <= missing <= taken_down and not problem:
            problem = (
                f"{unit}: the stage reported {name} {counts.get(name)}, its files hold {number}"
            )
    return findings([unit], [problem])
