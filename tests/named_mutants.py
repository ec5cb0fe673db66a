"""Wrong changes that once passed unnoticed: every one of them must fail a test.

    python -m tests.named_mutants [NAME]

Each is made in a copy of the project under build/mutants/named and its tests are run there, in a
process forked from one that has imported the large libraries: they take longer than the tests.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.mutants import FOLDER, PRELOADED, copy_all
from tests.rehearsal import ROOT, environment, say

COPY = FOLDER / "named"
#: First argument of this program when it runs in the copy.
HERE = "--here"


@dataclass(frozen=True)
class Change:
    """One text of a file replaced by another, and the test that must fail."""

    path: str
    old: str
    new: str
    tests: str


JUDGE, RULES = "ml/filtering/judge.py", "ml/filtering/rules.py"
SAFETY, BENCHMARK = "ml/filtering/safety.py", "ml/stages/benchmark.py"
TEST_JUDGE, TEST_RULES = "tests/ml/filtering/test_judge.py", "tests/ml/filtering/test_rules.py"
TEST_SAFETY = "tests/ml/filtering/test_safety.py"
TEST_BENCHMARK = "tests/ml/stages/test_benchmark.py"
CHANGES = {
    "rule 4 pairs parts of the wrong images": Change(
        JUDGE, "found[2 * position : 2 * position + 2]",
        "found[-2 - 2 * position : len(found) - 2 * position]",
        TEST_JUDGE + "::test_rule_4_gives_every_image_its_own_parts",
    ),
    "more heads in the parts pass": Change(
        RULES, "if num_heads == num_parts:", "if num_heads <= num_parts:",
        TEST_RULES + "::test_more_heads_are_as_wrong_as_fewer",
    ),
    "more heads in the mirror pass": Change(
        RULES, "if num_heads == num_heads_flipped:", "if num_heads <= num_heads_flipped:",
        TEST_RULES + "::test_more_heads_are_as_wrong_as_fewer",
    ),
    "confirmation at another IoU": Change(
        RULES, "CONFIRM_IOU = 0.4", "CONFIRM_IOU = 0.5",
        TEST_RULES + "::test_four_tenths_of_overlap_confirm",
    ),
    "confirmation at a lower IoU": Change(
        RULES, "CONFIRM_IOU = 0.4", "CONFIRM_IOU = 0.3",
        TEST_RULES + "::test_four_tenths_of_overlap_confirm",
    ),
    "file names in the identity index": Change(
        "ml/filtering/identity.py", "sources.append(hashlib.sha256(data).hexdigest())",
        "sources.append(path.name)",
        "tests/ml/filtering/test_identity.py::test_an_index_rejects_its_people_and_no_others",
    ),
    "another safe label by default": Change(
        SAFETY, '("normal", "neutral", "drawings")', '("normal", "neutral", "drawings", "sexy")',
        TEST_SAFETY + "::test_the_labels_of_public_classifiers_are_safe_by_default_or_not",
    ),
    "no margin of special care": Change(
        SAFETY, "_SPECIAL_CARE_MARGIN = 0.01", "_SPECIAL_CARE_MARGIN = 0.0",
        TEST_SAFETY + "::test_special_care_makes_every_concept_count_a_hundredth_sooner",
    ),
    "mirror matrix transposed": Change(
        "ml/flame/projection.py", "coefficients @ table",
        "coefficients @ table.T",
        "tests/ml/flame/test_projection.py::test_mirror_matrices_take_row_vectors",
    ),
    "letterbox aliases": Change(
        "ml/imaging/letterbox.py", "cv2.INTER_AREA if letterbox.scale < 1 else cv2.INTER_LINEAR",
        "cv2.INTER_LINEAR",
        "tests/ml/imaging/test_letterbox.py::test_shrinking_averages_what_it_cannot_show",
    ),
    "windows of mirrored images in mosaics": Change(
        "ml/training_data/mosaic.py", "            centre[0] = width - centre[0]\n",
        "            centre[0] = centre[0] - 0 * width\n",
        "tests/ml/training_data/test_mosaic.py::test_windows_are_centred_on_their_heads",
    ),
    "windows of mirrored images in augmentation": Change(
        "ml/training_data/augmentation.py", "        focus[0] = width - focus[0]\n",
        "        focus[0] = focus[0] - 0 * width\n",
        "tests/ml/training_data/test_augmentation.py"
        "::test_most_windows_are_centred_on_the_chosen_point_and_some_are_not",
    ),
    "gimbal lock without its branch": Change(
        "ml/flame/rotation.py", "locked = cos_yaw < 1e-6", "locked = cos_yaw < -1.0",
        "tests/ml/flame/test_rotation.py::test_gimbal_lock_keeps_the_rotation",
    ),
    "gimbal lock with another sign": Change(
        "ml/flame/rotation.py", "torch.atan2(-m[..., 1, 2], m[..., 1, 1])",
        "torch.atan2(m[..., 1, 2], m[..., 1, 1])",
        "tests/ml/flame/test_rotation.py::test_gimbal_lock_keeps_the_rotation",
    ),
    "statistics of captions without a scene": Change(
        "ml/dataset/statistics.py", "        if text != NO_SCENE\n", "",
        "tests/ml/dataset/test_statistics.py::test_captions_without_a_scene_have_no_tones",
    ),
    "words of captions without a scene": Change(
        "ml/quality/distributions.py", ' for text in captions["scene"] if text != NO_SCENE]',
        ' for text in captions["scene"]]',
        "tests/ml/quality/test_distributions.py"
        "::test_words_are_those_of_captions_that_have_a_scene",
    ),
    "benchmark on the training images": Change(
        BENCHMARK, 'splits: Sequence[str] = ("test",)', 'splits: Sequence[str] = ("train",)',
        TEST_BENCHMARK + "::test_only_the_test_split_is_measured",
    ),
    "column of the flip is the plain one's": Change(
        BENCHMARK, "FlipAveraged(detector, head_model)", "detector",
        TEST_BENCHMARK + "::test_the_flip_column_is_the_run_on_mirrored_images",
    ),
    "frontal baseline replaced": Change(
        BENCHMARK, "[always_frontal(heads, geometry) for heads in first]",
        "[mean_head(heads) for heads in first]",
        TEST_BENCHMARK + "::test_always_frontal_errs_by_the_angle_of_the_heads",
    ),
    "operating score ignored by the benchmark": Change(
        BENCHMARK, "evaluate(heads, batch, geometry, config.operating_score)",
        "evaluate(heads, batch, geometry)",
        TEST_BENCHMARK + "::test_the_operating_score_is_honoured",
    ),
    "operating score ignored by the evaluation": Change(
        "ml/evaluation/protocol.py", "int((scores >= operating_score).sum())", "len(scores)",
        "tests/ml/evaluation/test_protocol.py"
        "::test_flawless_images_have_every_head_and_nothing_else",
    ),
}  # fmt: skip


def passes(tests: Sequence[str]) -> bool:
    """Whether tests pass in the present folder, in a forked process.

    Raises:
        ValueError: they could not be run.
    """
    import pytest

    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        raise ValueError(f"{' '.join(tests)}: pytest ended with {code}")
    return code == 0


def survives(change: Change) -> bool:
    """Whether the tests pass with a change in the present folder.

    Raises:
        ValueError: the file has no such text, or more than one.
    """
    path = ROOT / change.path
    text = path.read_text()
    if text.count(change.old) != 1:
        raise ValueError(f"{change.path}: {text.count(change.old)} times {change.old!r}, not once")
    path.write_text(text.replace(change.old, change.new))
    try:
        return passes([change.tests])
    finally:
        path.write_text(text)


def try_all(names: list[str]) -> int:
    """Print the fate of each change, made in the folder of this file; 1 when one survives.

    Raises:
        ValueError: tests fail without any change.
    """
    for library in PRELOADED:
        importlib.import_module(library)
    # A change within a second that keeps the length of a file would leave its byte code in use.
    sys.dont_write_bytecode = True
    chosen = {n: c for n, c in CHANGES.items() if not names or any(part in n for part in names)}
    tests = sorted({change.tests for change in chosen.values()})
    if not passes(tests):
        raise ValueError(f"{' '.join(tests)}: fail without any change, and so would with each")
    left = []
    for name, change in chosen.items():
        begun = time.monotonic()
        passed = survives(change)
        left += [name] * passed
        took = time.monotonic() - begun
        sys.stdout.write(f"{'SURVIVES' if passed else 'killed'}  {took:4.1f} s  {name}\n")
        sys.stdout.flush()
    say(f"{len(chosen) - len(left)} of {len(chosen)} killed")
    return 1 if left else 0


def main(names: list[str]) -> int:
    """Copy the project and try the changes there."""
    if names[:1] == [HERE]:
        return try_all(names[1:])
    copy_all(COPY)
    command = [sys.executable, "-m", "tests.named_mutants", HERE, *names]
    return subprocess.run(command, cwd=COPY, env=environment(COPY), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
