"""Ids, atomic writes, configuration, reports, exclusions, heads, register and lineage."""

import numpy as np
import pandas as pd
import pytest

from ml.records.atomic import atomic_write, write_json
from ml.records.config import StageConfig, parse_yaml, read_config
from ml.records.exclusions import Exclusions, LostSamples, read_exclusions
from ml.records.heads import Heads
from ml.records.ids import sample_rng, sample_seed, shard_name, stable_fraction
from ml.records.lineage import UnknownSample, sample_lineage
from ml.records.register import LicenceError, check_export
from ml.records.report import StageReport
from ml.records.tables import CAPTIONS, write_table
from ml.records.workspace import Workspace


def test_seeds_depend_on_each_argument_and_nothing_else():
    seeds = {sample_seed(r, s, i) for r in (0, 1) for s in ("a", "b") for i in ("x", "y")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(7, "images", "000001_0") == sample_seed(7, "images", "000001_0")
    first, again = (sample_rng(7, "images", "000001_0").random(3) for _ in range(2))
    assert (first == again).all()


def test_stable_fractions_are_uniform():
    fractions = np.array([stable_fraction(f"p{i}") for i in range(4000)])
    assert fractions.min() >= 0
    assert fractions.max() < 1
    assert np.histogram(fractions, 4, (0, 1))[0].min() > 900


def test_shard_names_sort_like_their_numbers():
    names = [shard_name(i) for i in (0, 9, 10, 99999)]
    assert names == sorted(names)


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": 2})
    old = path.read_bytes()
    with pytest.raises(FileNotFoundError), atomic_write(path) as temporary:
        temporary.write_text("half")
        (tmp_path / "missing").read_text()
    assert path.read_bytes() == old == b'{\n "a": 2,\n "b": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})


class Toy(StageConfig):
    """A stage's configuration for the tests."""

    count: int
    """How many."""


def test_config_errors_name_section_key_and_value():
    assert read_config(Toy, "toy", {"count": 3}).count == 3
    with pytest.raises(ValueError, match=r"toy\.cuont: unknown key; allowed: count"):
        read_config(Toy, "toy", {"count": 3, "cuont": 4})
    with pytest.raises(ValueError, match=r"toy\.count: .*got 'many'"):
        read_config(Toy, "toy", {"count": "many"})


def test_yaml_gives_values_and_builds_no_objects(tmp_path):
    assert parse_yaml("a: [1, 2.5, null]\nb: {on: x}") == {"a": [1, 2.5, None], "b": {"on": "x"}}
    assert parse_yaml("") is None
    made = tmp_path / "made"
    with pytest.raises(ValueError, match="could not determine a constructor"):
        parse_yaml(f"!!python/object/apply:os.mkdir ['{made}']")
    assert not made.exists()


def test_report_refuses_lost_samples():
    assert StageReport(5, 3, 2).num_excluded == 2
    with pytest.raises(ValueError, match=r"in 5 != out 3 \+ excluded 1"):
        StageReport(5, 3, 1)


def test_exclusions_are_written_with_reason_and_read_by_stage(tmp_path):
    ws = Workspace(tmp_path, seed=0, num_shards=1, shard_size=1)
    excluded = Exclusions("images")
    excluded.write(ws, "shard-00000")
    excluded.add("a_0", "truncated", "shard-00000.tar/a_0: cut")
    excluded.write(ws, "shard-00001")
    rows = read_exclusions(ws, ["images", "captions"])
    assert rows.to_dict("records") == [
        {
            "sample_id": "a_0",
            "stage": "images",
            "reason": "truncated",
            "detail": "shard-00000.tar/a_0: cut",
        }
    ]


def test_heads_check_their_shapes():
    heads = Heads(np.zeros((2, 4)), np.array([0.1, 0.9]), np.zeros((2, 413)))
    assert len(heads[heads.scores > 0.5]) == 1
    assert len(Heads.empty()) == 0
    with pytest.raises(ValueError, match=r"Heads.flame: expected shape \(2, 413\), got \(2, 412\)"):
        Heads(np.zeros((2, 4)), np.zeros(2), np.zeros((2, 412)))


def test_register_names_the_forbidding_parent():
    check_export(["open-head", "renderer"], commercial=True)
    check_export(["dad-3dnet"])
    with pytest.raises(LicenceError, match=r"commercial export is forbidden by dad-3dnet \(CC"):
        check_export(["renderer", "dad-3dnet"], commercial=True)
    with pytest.raises(LicenceError, match=r"export is forbidden by flame-2020"):
        check_export(["flame-2020"])
    with pytest.raises(KeyError, match="'smile' is unknown"):
        check_export(["smile"])


def test_lineage_of_an_unknown_sample_is_an_error(tmp_path):
    with pytest.raises(UnknownSample, match="no stage knows sample 'x'"):
        sample_lineage(Workspace(tmp_path, seed=0, num_shards=2, shard_size=1), "x")


def test_lineage_gathers_caption_heads_and_exclusions(tmp_path):
    ws = Workspace(tmp_path, seed=0, num_shards=2, shard_size=1)
    caption = {
        "sample_id": "image-1",
        "pose_id": "pose-1",
        "split": "train",
        "num_people": 1,
        "caption": "a person",
        "prompt": "a person in a park",
        "negative_prompt": "blur",
        "choices": '{"suffix": true}',
        "scene": '{"place": "a park"}',
        "captioner": "scene-grammar",
        "seed": 7,
    }
    write_table(ws.table_path("captions", "shard-00001"), pd.DataFrame([caption]), CAPTIONS)
    excluded = Exclusions("annotations")
    excluded.add("image-1", "damaged_image", "shard-00001.tar/image-1: cut")
    excluded.write(ws, "shard-00001")
    lineage = sample_lineage(ws, "image-1")
    assert lineage["caption"]["seed"] == 7
    assert lineage["caption"]["scene"] == {"place": "a park"}
    assert lineage["exclusions"][0]["reason"] == "damaged_image"
    assert "verdict" not in lineage


def test_every_sample_that_was_read_is_used_or_excluded():
    exclusions = Exclusions("labels")
    exclusions.add("b", "damaged_image", "x")
    exclusions.add("a#1", "doubled box", "a head, not a sample")
    assert exclusions.account(["a", "b"], ["a"]) == (2, 1, 1)
    exclusions.add("a", "listed twice", "x")
    assert exclusions.account(["a", "b", "a"], ["a"]) == (3, 1, 2)


@pytest.mark.parametrize(
    ("given", "used", "message"),
    [
        (["a", "b", "c"], ["a"], "labels: read, and neither used nor excluded: c"),
        (["a", "b"], ["a", "a"], "labels: used or excluded, more often than read: a"),
        (["b"], ["a"], "labels: used or excluded, more often than read: a"),
        (["a", "b"], ["a", "b"], "labels: used or excluded, more often than read: b"),
        ([f"s{n:02d}" for n in range(25)] + ["b"], [], "s18, s19 and 5 more"),
    ],
)
def test_lost_and_doubled_samples_are_named(given, used, message):
    exclusions = Exclusions("labels")
    exclusions.add("b", "damaged_image", "x")
    with pytest.raises(LostSamples) as error:
        exclusions.account(given, used)
    assert str(error.value).endswith(message)
