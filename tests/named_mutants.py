"""Wrong changes that once passed unnoticed: every one of them must fail a test.

    python -m tests.named_mutants [NAME]

Each is made in a copy of the project under build/mutants/named and its tests are run there.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from tests.mutants import FOLDER, copy_all
from tests.rehearsal import environment, say


@dataclass(frozen=True)
class Change:
    """One text of a file replaced by another, and the tests that must fail."""

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
        "found[-2 - 2 * position : len(found) - 2 * position]", TEST_JUDGE,
    ),
    "more heads in the parts pass": Change(
        RULES, "if num_heads == num_parts:", "if num_heads <= num_parts:", TEST_RULES
    ),
    "more heads in the mirror pass": Change(
        RULES, "if num_heads == num_heads_flipped:", "if num_heads <= num_heads_flipped:",
        TEST_RULES,
    ),
    "confirmation at another IoU": Change(
        RULES, "CONFIRM_IOU = 0.4", "CONFIRM_IOU = 0.5", TEST_RULES
    ),
    "confirmation at a lower IoU": Change(
        RULES, "CONFIRM_IOU = 0.4", "CONFIRM_IOU = 0.3", TEST_RULES
    ),
    "file names in the identity index": Change(
        "ml/filtering/identity.py", "sources.append(hashlib.sha256(data).hexdigest())",
        "sources.append(path.name)", "tests/ml/filtering/test_identity.py",
    ),
    "another safe label by default": Change(
        SAFETY, '("normal", "neutral", "drawings")', '("normal", "neutral", "drawings", "sexy")',
        TEST_SAFETY,
    ),
    "no margin of special care": Change(
        SAFETY, "_SPECIAL_CARE_MARGIN = 0.01", "_SPECIAL_CARE_MARGIN = 0.0", TEST_SAFETY
    ),
    "mirror matrix transposed": Change(
        "ml/flame/projection.py", "coefficients @ table",
        "coefficients @ table.T", "tests/ml/flame/test_projection.py",
    ),
    "letterbox aliases": Change(
        "ml/imaging/letterbox.py", "cv2.INTER_AREA if letterbox.scale < 1 else cv2.INTER_LINEAR",
        "cv2.INTER_LINEAR", "tests/ml/imaging/test_letterbox.py",
    ),
    "windows of mirrored images in mosaics": Change(
        "ml/training_data/mosaic.py", "            centre[0] = width - centre[0]\n",
        "            centre[0] = centre[0] - 0 * width\n", "tests/ml/training_data/test_mosaic.py",
    ),
    "windows of mirrored images in augmentation": Change(
        "ml/training_data/augmentation.py", "        focus[0] = width - focus[0]\n",
        "        focus[0] = focus[0] - 0 * width\n", "tests/ml/training_data/test_augmentation.py",
    ),
    "gimbal lock without its branch": Change(
        "ml/flame/rotation.py", "locked = cos_yaw < 1e-6", "locked = cos_yaw < -1.0",
        "tests/ml/flame/test_rotation.py",
    ),
    "gimbal lock with another sign": Change(
        "ml/flame/rotation.py", "torch.atan2(-m[..., 1, 2], m[..., 1, 1])",
        "torch.atan2(m[..., 1, 2], m[..., 1, 1])", "tests/ml/flame/test_rotation.py",
    ),
    "statistics of captions without a scene": Change(
        "ml/dataset/statistics.py", "        if text != NO_SCENE\n", "",
        "tests/ml/dataset/test_statistics.py",
    ),
    "words of captions without a scene": Change(
        "ml/quality/distributions.py", ' for text in captions["scene"] if text != NO_SCENE]',
        ' for text in captions["scene"]]', "tests/ml/quality",
    ),
    "benchmark on the training images": Change(
        BENCHMARK, 'splits: Sequence[str] = ("test",)', 'splits: Sequence[str] = ("train",)',
        TEST_BENCHMARK,
    ),
    "column of the flip is the plain one's": Change(
        BENCHMARK, "FlipAveraged(detector, head_model)", "detector", TEST_BENCHMARK
    ),
    "frontal baseline replaced": Change(
        BENCHMARK, "[always_frontal(heads, geometry) for heads in first]",
        "[mean_head(heads) for heads in first]", TEST_BENCHMARK,
    ),
    "operating score ignored by the benchmark": Change(
        BENCHMARK, "evaluate(heads, batch, geometry, config.operating_score)",
        "evaluate(heads, batch, geometry)", TEST_BENCHMARK,
    ),
    "operating score ignored by the evaluation": Change(
        "ml/evaluation/protocol.py", "int((scores >= operating_score).sum())", "len(scores)",
        "tests/ml/evaluation",
    ),
}  # fmt: skip


def passes(tests: str) -> bool:
    """Whether tests pass in the copy as it is.

    Raises:
        ValueError: they could not be run.
    """
    folder = FOLDER / "named"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise ValueError(f"{tests}: pytest ended with {done.returncode}:\n{done.stdout}")
    return done.returncode == 0


def survives(change: Change) -> bool:
    """Whether the tests pass with a change.

    Raises:
        ValueError: the file has no such text, or more than one.
    """
    path = FOLDER / "named" / change.path
    text = path.read_text()
    if text.count(change.old) != 1:
        raise ValueError(f"{change.path}: {text.count(change.old)} times {change.old!r}, not once")
    path.write_text(text.replace(change.old, change.new))
    passed = passes(change.tests)
    path.write_text(text)
    return passed


def main(names: list[str]) -> int:
    """Print the fate of each change; 1 when one survives.

    Raises:
        ValueError: tests fail without any change.
    """
    copy_all(FOLDER / "named")
    chosen = {n: c for n, c in CHANGES.items() if not names or any(part in n for part in names)}
    for tests in sorted({change.tests for change in chosen.values()}):
        if not passes(tests):
            raise ValueError(f"{tests}: fails without any change, and so would with each")
    left = []
    for name, change in chosen.items():
        passed = survives(change)
        left += [name] * passed
        sys.stdout.write(f"{'SURVIVES' if passed else 'killed'}  {name}\n")
        sys.stdout.flush()
    say(f"{len(left)} survive")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
