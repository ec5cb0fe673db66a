"""Sets of ground truth: a perfect predictor scores perfectly, a known error scores itself.

Everything goes through the public layouts on disk and through the readers, protocols and scorers.
"""

from __future__ import annotations

import numpy as np
import pytest

from ml.benchmarks.generated.from_truth import SET_NAMES, write_generated_sets
from ml.benchmarks.running import converter
from ml.benchmarks.scoring import score_with
from ml.benchmarks.sets import SETS, Situation
from ml.evaluation.protocol import EvaluationSample
from ml.records.heads import Heads
from tests.ml.inference.conftest import heads_of, noise_image, posed

POSES = ((5.0, -30.0, 10.0), (-10.0, 20.0, 0.0), (0.0, 55.0, -15.0))


def sample(name: str, heads: Heads, ignore: np.ndarray | None = None) -> EvaluationSample:
    ignore = np.zeros(len(heads), bool) if ignore is None else ignore
    return EvaluationSample(name, noise_image(len(name), 200, 240), heads, ignore)


def renders() -> list[EvaluationSample]:
    """Single heads with shapes of their own, a pair, a head from behind, and one hardly seen."""
    found = []
    for number, pose in enumerate(POSES):
        flame = posed(pose, (100.0 + 10 * number, 90.0), 500.0)
        flame[:3] = number - 1.0, 0.5, 1.0
        flame[300] = 1.0
        found.append(sample(f"single{number}", heads_of(flame)))
    left, right = posed((0, 10, 0), (60.0, 100.0), 300.0), posed((8, 0, 0), (180.0, 100.0), 250.0)
    behind = posed((0, 0, 0), (180.0, 90.0), 300.0)
    behind[403:409] = -1.0, 0, 0, 0, -1.0, 0
    found.append(sample("pair", heads_of(left, right)))
    found.append(sample("behind", heads_of(left, behind)))
    found.append(sample("hidden", heads_of(left, right), np.array([False, True])))
    return found


@pytest.fixture(scope="module")
def generated(tmp_path_factory, open_head):
    root = tmp_path_factory.mktemp("generated")
    return write_generated_sets(root, renders(), open_head, 8)


def scores(generated, head_model, name, protocol, change=lambda heads: heads):
    benchmark = SETS[name]
    convert = converter(benchmark, protocol, head_model)
    result = score_with(
        benchmark,
        Situation(generated.folders[name], loaded=head_model),
        lambda item: convert(item, change(generated.heads[name][item.sample_id])),
        "truth",
        protocol,
        resamples=2,
    )
    assert not result.excluded, result.exclusions.to_frame()
    assert result.scores.counts["num_images"] == len(generated.heads[name])
    return result.scores


def test_every_set_is_written(generated):
    assert tuple(generated.folders) == SET_NAMES
    assert {n: len(heads) for n, heads in generated.heads.items()} == {
        "aflw2000": 3, "biwi": 3, "dad": 3, "fddb": 5, "wider": 5, "feng": 3, "now": 3,
    }  # fmt: skip


PERFECT = [
    ("aflw2000", "ours", {"rotation_deg": 0.0, "euler_mae_deg": 0.0}),
    ("aflw2000", "vggheads", {"euler_mae_deg": 0.0}),
    ("aflw2000", "6drepnet", {"euler_mae_deg": 0.0}),
    ("aflw2000", "hopenet_crop", {"euler_mae_deg": 0.0}),
    ("aflw2000", "img2pose", {"euler_mae_deg": 0.0}),
    ("aflw2000", "68", {"nme_68": 0.0}),
    ("biwi", "ours", {"rotation_deg": 0.0, "aligned_rotation_deg": 0.0}),
    ("biwi", "vggheads", {"euler_mae_deg": 0.0}),
    ("biwi", "6drepnet", {"euler_mae_deg": 0.0}),
    ("biwi", "img2pose", {"euler_mae_deg": 0.0}),
    ("dad", "dad-3dheads", {"nme_68_box": 0.0, "z5": 1.0, "chamfer": 0.0, "rotation_frobenius": 0}),
    ("fddb", "fddb", {"disc_tpr": 1.0}),
    ("fddb", "coco", {"ap50": 1.0}),
    ("wider", "wider-python", {"ap_easy": 1.0, "ap_medium": 1.0, "ap_hard": 1.0}),
    ("wider", "coco", {"ap50": 1.0}),
    ("feng", "feng", {"scan_median_mm": 0.0, "scan_rmse_mm": 0.0}),
    ("now", "now", {"scan_median_mm": 0.0}),
    ("now", "now_robust", {"scan_median_mm": 0.0}),
    ("now", "now_metrical", {"scan_median_mm": 0.0}),
]


def test_every_protocol_of_every_generated_set_is_among_them():
    assert {(name, protocol) for name, protocol, _ in PERFECT} == {
        (name, protocol) for name in SET_NAMES for protocol in SETS[name].protocols
    }


@pytest.mark.parametrize(("name", "protocol", "expected"), PERFECT)
def test_a_perfect_predictor_scores_perfectly(generated, open_head, name, protocol, expected):
    found = scores(generated, open_head, name, protocol)
    tolerance = {"rotation_deg": 0.05, "euler_mae_deg": 0.05}
    for metric, value in expected.items():
        assert found.metrics[metric] == pytest.approx(value, abs=tolerance.get(metric, 0.02)), (
            metric
        )
    assert found.counts.get("num_missed", 0) == 0


def turned(heads: Heads, degrees: float = 12.0) -> Heads:
    """Heads rolled in the image."""
    import torch

    from ml.flame.geometry import HeadGeometry
    from ml.flame.rotation import sixd_from_matrix

    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    roll = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    flame = heads.flame.copy()
    matrices = torch.as_tensor(roll @ HeadGeometry.rotations(flame))
    flame[:, 403:409] = sixd_from_matrix(matrices).numpy()
    return Heads(heads.boxes_xyxy, heads.scores, flame)


@pytest.mark.parametrize("name", ["aflw2000", "biwi"])
def test_a_known_error_scores_that_error(generated, open_head, name):
    found = scores(generated, open_head, name, "ours", turned)
    assert found.metrics["rotation_deg"] == pytest.approx(12.0, abs=0.1)


def test_a_known_rotation_scores_its_frobenius_norm_on_dad(generated, open_head):
    found = scores(generated, open_head, "dad", "dad-3dheads", turned)
    expected = np.sqrt(8) * np.sin(np.radians(6.0))
    assert found.metrics["rotation_frobenius"] == pytest.approx(expected, abs=1e-3)


def test_a_face_ten_percent_too_large_scores_so_by_its_metrical_size_alone(generated, open_head):
    convert = converter(SETS["now"], "now", open_head)
    for protocol, exact in (("now", True), ("now_metrical", False)):
        found = score_with(
            SETS["now"],
            Situation(generated.folders["now"], loaded=open_head),
            lambda item: larger(convert(item, generated.heads["now"][item.sample_id])),
            "larger",
            protocol,
            resamples=2,
        ).scores.metrics["scan_median_mm"]
        assert (found < 0.05) is exact, (protocol, found)


def larger(face):
    from ml.benchmarks.metrics_scan import MeshPrediction

    return MeshPrediction(1.1 * face.vertices, face.faces, 1.1 * face.seven)


def test_a_missed_head_counts(generated, open_head):
    """Of two faces of the pair one is found; of the other images none is missing."""

    def without_last(heads: Heads) -> Heads:
        return heads[: max(len(heads) - 1, 1)]

    found = scores(generated, open_head, "fddb", "fddb", without_last)
    # three singles, a pair, and a pair of which one looks away: six faces
    assert found.metrics["disc_tpr"] == pytest.approx(5 / 6)


def test_the_same_truth_makes_the_same_bytes(generated, open_head, tmp_path):
    again = write_generated_sets(tmp_path, renders(), open_head, 8)
    for name, folder in generated.folders.items():
        files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        assert files
        for file in files:
            assert (folder / file).read_bytes() == (again.folders[name] / file).read_bytes(), file


def test_a_set_without_fitting_images_is_left_out(tmp_path, open_head):
    pair = [one for one in renders() if one.sample_id == "pair"]
    assert tuple(write_generated_sets(tmp_path, pair, open_head, 8).folders) == (
        "fddb",
        "wider",
    )
