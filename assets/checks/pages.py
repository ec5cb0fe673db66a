"""Data Docs: a page a suite, and one that links them; they load nothing from anywhere.

Great Expectations' own pages take their style sheets and scripts from the network, and are bare
text without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from assets.checks.suite import Check, Suite
from ml.records.atomic import write_json, write_text

if TYPE_CHECKING:
    from assets.checks.validation import Outcome

_TEMPLATES: Final = Path(__file__).parent / "templates"
_SUMMARY: Final = "summary.json"
_KINDS: Final = {
    "rules": ("Rules", "What every row must satisfy, alone and together with the other tables."),
    "bounds": (
        "Bounds",
        "Fractions, means and counts of a whole run, within the profile's bounds.",
    ),
    "statistics": ("Statistics", "Columns as a whole: their means, spreads and distributions."),
    "gate": ("Gates", "Whether a result is good enough for the next stage to build on."),
    "": ("Tables", "The declared columns: types, units, ranges, keys and references."),
}
"""Last word of a suite's name -> the group's title and what its suites hold."""


@dataclass(frozen=True)
class Summary:
    """One suite's entry on the page of all suites.

    Attributes:
        name: the suite's name and its folder.
        title: the name as words.
        kind: a key of the groups.
        about: names of its checks.
        checks: number of its checks.
        passed: number of passed checks.
        failed: critical ones that do not.
        warned: others that do not.
        rows: rows judged.
    """

    name: str
    title: str
    kind: str
    about: str
    checks: int
    passed: int
    failed: int
    warned: int
    rows: int


def describe(name: str) -> tuple[str, str, str]:
    """Return a suite's title, kind and the description of that kind.

    Args:
        name: such as `crop_rules`.

    Returns:
        Such as `Crop rules`, `rules` and what rules are.
    """
    last = name.rpartition("_")[2]
    kind = last if last in _KINDS else ""
    title = name.replace("_", " ").capitalize()
    return (title if kind else f"{title}: the table"), kind, _KINDS[kind][1]


def write_pages(docs: Path, suite: Suite, outcomes: Sequence[Outcome]) -> None:
    """Write a suite's page, and the page that links all suites.

    Args:
        docs: the folder of Data Docs.
        suite: the suite.
        outcomes: its results, in the order of its checks.
    """
    title, kind, about = describe(suite.name)
    failed = sum(outcome.blocks for outcome in outcomes)
    passed = sum(outcome.passed for outcome in outcomes)
    summary = Summary(
        suite.name,
        title,
        kind,
        ", ".join(check.name.replace("_", " ") for check in suite.checks),
        len(outcomes),
        passed,
        failed,
        len(outcomes) - passed - failed,
        max((outcome.num_rows for outcome in outcomes), default=0),
    )
    lines = [_line(check, outcome) for check, outcome in zip(suite.checks, outcomes, strict=True)]
    folder = docs / suite.name
    write_json(folder / _SUMMARY, asdict(summary))
    write_text(folder / "index.html", _render(title=title, about=about, lines=lines))
    write_text(docs / "index.html", _index(docs))


def _index(docs: Path) -> str:
    found = [Summary(**json.loads(path.read_text())) for path in sorted(docs.glob(f"*/{_SUMMARY}"))]
    groups = [
        (title, about, [summary for summary in found if summary.kind == kind])
        for kind, (title, about) in _KINDS.items()
    ]
    checks, passed = sum(s.checks for s in found), sum(s.passed for s in found)
    return _render(
        title="Data Docs",
        about=f"{passed} of {checks} checks of {len(found)} suites held when they last ran.",
        suites=[group for group in groups if group[-1]],
    )


def _line(check: Check, outcome: Outcome) -> dict[str, Any]:
    verdict = "passed" if outcome.passed else "failed" if outcome.blocks else "warned"
    return {
        "verdict": verdict,
        "why": outcome.why,
        "title": check.name.replace("_", " "),
        "severity": "blocks" if check.severity == "critical" else "warns",
        "expectation": _expectation(check),
        "observed": outcome.observed,
        "rows": outcome.num_rows,
        "unexpected": outcome.unexpected,
        "more": outcome.num_unexpected - len(outcome.unexpected),
    }


def _expectation(check: Check) -> str:
    """Return the expectation as Great Expectations calls it, with its arguments."""
    config = check.expectation.configuration
    arguments = ", ".join(f"{name}={value!r}" for name, value in sorted(config.kwargs.items()))
    return f"{config.type}({arguments})"


def _render(**values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True,
    )  # fmt: skip
    return environment.get_template("suite.html.jinja").render(**values)
