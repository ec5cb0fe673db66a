"""Reasons of exclusion: constants of one module, one for each cause."""

import ast
from pathlib import Path

import pytest

from ml.records import reasons
from ml.records.exclusions import Exclusions, TooManyExcluded

ROOT = Path(__file__).parents[3]
CONSTANTS = {name: value for name, value in vars(reasons).items() if name.isupper()}
#: How a reason is handed over: name of the function or class -> position of the reason.
TAKES_REASON = {
    "add": 1, "refuse": 0, "_refused": 1, "Problem": 0, "NotGenerated": 0, "Finding": 0,
}  # fmt: skip


def literal_reasons(source: str) -> list[str]:
    """Reasons in a module's text that are strings of their own and no constants."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        position = TAKES_REASON.get(name)
        if position is None or len(node.args) <= max(position, 1 if name != "add" else 2):
            continue
        reason = node.args[position]
        if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
            found.append(reason.value)
    return found


def test_every_reason_is_a_constant() -> None:
    modules = sorted((ROOT / "ml").rglob("*.py"))
    assert len(modules) > 200
    used = " ".join(path.read_text() for path in modules)
    assert used.count("reasons.DAMAGED_IMAGE") > 3
    found = {str(path): literal_reasons(path.read_text()) for path in modules}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_literal_is_seen() -> None:
    text = 'exclusions.add("a", "broken", "why")\nseen.add("a")\nProblem("odd", "why")\n'
    assert literal_reasons(text) == ["broken", "odd"]


def test_names_and_values_agree() -> None:
    assert len(CONSTANTS) > 30
    assert {name: name.lower() for name in CONSTANTS} == CONSTANTS


def excluded(*sample_ids: str) -> Exclusions:
    exclusions = Exclusions("stage")
    for sample_id in sample_ids:
        exclusions.add(sample_id, reasons.DAMAGED_IMAGE, "cut")
    return exclusions


def test_drop_rate_counts_samples_and_not_their_heads() -> None:
    exclusions = excluded("a", "b#1", "b#2")
    assert exclusions.num_samples == 1
    exclusions.check_drop_rate(2, 0.5, "images")
    with pytest.raises(
        TooManyExcluded,
        match=r"^stage shard-1: 1 of 3 images excluded, more than stage.max_drop_rate = 0.2 "
        r"allows \(damaged_image 1\); first: a: cut; rerun it$",
    ):
        exclusions.check_drop_rate(3, 0.2, "images", "shard-1", advice="rerun it")


def test_where_one_must_be_left_all_may_not_go() -> None:
    excluded("a", "b").check_drop_rate(2, 1.0, "images")
    for exclusions, num_in in ((excluded("a", "b"), 2), (excluded(), 0)):
        with pytest.raises(TooManyExcluded, match="or none is left"):
            exclusions.check_drop_rate(num_in, 1.0, "images", needs_one=True)


def test_rows_move_to_another_object() -> None:
    together = excluded("a")
    together.extend(excluded("b").rows())
    assert together.to_frame()["sample_id"].tolist() == ["a", "b"]
