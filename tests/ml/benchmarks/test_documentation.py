"""Every set has its page, and docs/metrics.md lists every key of a score file."""

import re
from pathlib import Path

import numpy as np
import pytest

from ml.benchmarks.conventions import EULER_CONVENTIONS, ROTATION_CONVENTIONS
from ml.benchmarks.metrics_scan import MeshPrediction
from ml.benchmarks.predictions import HeadPredictions, open_predictions
from ml.benchmarks.scoring import score
from ml.benchmarks.sets import SETS
from ml.benchmarks.wider import write_wider_text
from tests.benchmark_sets.boxes import write_fddb, write_wider
from tests.benchmark_sets.poses import write_aflw2000, write_biwi
from tests.benchmark_sets.scans import face_mesh, seven, write_feng, write_now
from tests.ml.benchmarks.test_scan_sets import written

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "benchmarks"
METRICS = (ROOT / "docs" / "metrics.md").read_text()
BOXES = np.array([[10.0, 10, 50, 60]])
WHOLE = HeadPredictions(boxes_xyxy=BOXES, euler_deg=np.zeros((1, 3)))
LANDMARKS = HeadPredictions(landmarks_px=np.random.default_rng(0).uniform(size=(1, 68, 2)))


def test_the_first_page_names_every_set_protocol_and_convention():
    text = (PAGES / "README.md").read_text()
    rows = {line for line in text.splitlines() if line.startswith("| `")}
    for one in SETS.values():
        row = next(r for r in rows if f"`{one.name}`" in r.split("|")[1])
        assert all(f"`{p}`" in row for p in one.protocols), one.name
        page = re.search(r"\((\w+\.md)\)", row)
        assert page
        assert (PAGES / page[1]).is_file()
        assert f"vggheads score {one.name}" in (PAGES / page[1]).read_text() or (
            one.name.endswith("-test") or one.name == "renders"
        )
    for name in (*EULER_CONVENTIONS, *ROTATION_CONVENTIONS):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("name", ["aflw2000", "biwi", "dad", "fddb", "wider", "feng", "now"])
def test_the_page_of_a_public_set_says_all_that_its_user_needs(name):
    text = (PAGES / f"{name}.md").read_text()
    for heading in ("**Get it**", "**Licence**", "**Paper**", "**Layout**"):
        assert heading in text, heading
    assert "**Faults in the public tools**" in text or "**Known**:" in text
    assert re.search(rf"vggheads score {name} --truth DIR", text)
    assert re.search(rf"vggheads benchmark {name}(-test)? --data DIR", text)
    for protocol in SETS[name].protocols:
        # the only protocol of a set is described where its numbers are
        assert f"`{protocol}`" in text or len(SETS[name].protocols) == 1, protocol


def cases(folder):
    """One small run of every set and protocol whose truth can be made without a head model."""
    mesh = MeshPrediction(*face_mesh(), seven(face_mesh()[0]))
    write_wider_text(folder / "w", "0--Parade/0_Parade_marchingband_1_465", WHOLE)
    lines = {
        "fddb": ("2002/08/11/big/img_591", WHOLE),
        "aflw2000": ("image00002", WHOLE),
        "biwi": ("01/frame_00003", WHOLE),
        "68": ("image00002", LANDMARKS),
    }
    for name, (image, heads) in lines.items():
        with open_predictions(folder / f"{name}.jsonl", "x") as writer:
            writer.add(image, heads)
    roots = {
        "fddb": write_fddb(folder / "fddb", images=False),
        "wider": write_wider(folder / "wider", images=False),
        "aflw2000": write_aflw2000(folder / "aflw"),
        "biwi": write_biwi(folder / "biwi"),
        "feng": write_feng(folder / "feng"),
        "now": write_now(folder / "now"),
    }
    meshes = written(
        folder / "m", {"HQ/F1001_01": mesh, "FaMoS_1_TA/multiview_neutral/IMG_1": mesh}
    )
    for name, root in roots.items():
        for protocol in SETS[name].protocols:
            path = folder / f"{protocol if protocol == '68' else name}.jsonl"
            if name in ("feng", "now"):
                path = meshes
            yield name, protocol, root, folder / "w" if name == "wider" else path


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documented")
    return [
        (name, protocol, score(name, root, path, protocol, resamples=2))
        for name, protocol, root, path in cases(folder)
    ]


def test_every_metric_of_every_protocol_is_documented(results):
    assert len(results) == 18
    words = set(re.findall(r"`([^`]+)`", METRICS))
    groups = ("_hq", "_lq", "_multiview_neutral", "_multiview_occlusions", "_selfie")
    missing = set()
    for _, _, result in results:
        assert result.scores.metrics
        for name in result.scores.metrics:
            plain = name.removeprefix("aligned_")
            for group in groups:
                plain = plain.removesuffix(group)
            # a further name of a family is written by its ending: `disc_tpr_fp100`, `_fp500`
            endings = {plain[i:] for i, c in enumerate(plain) if c == "_"}
            if plain not in words and not endings & words:
                missing.add(name)
    assert not missing


def test_keys_that_are_no_metrics_are_documented(results):
    for _, _, result in results:
        values = result.as_json()
        for name, value in values.items():
            if not isinstance(value, int | float | None):
                assert f"`{name}`" in METRICS, name
        assert {"num_excluded", "num_missed"} & set(values)
        for name in result.scores.metrics:
            low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
            assert (low is None) == (high is None)
