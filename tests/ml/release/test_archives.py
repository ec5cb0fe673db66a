"""A release in a folder, in several tars, with its small part: the same samples, read in place."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ml.records.exclusions import Exclusions, LostSamples
from ml.records.tables import DATASET_HEADS, IMAGES, VERDICTS, read_stage, read_table
from ml.records.workspace import Workspace
from ml.release import official_import
from ml.release.archives import NotARelease, Release, part_of
from ml.release.manifest import what_lacks
from ml.release.official_import import import_official, import_release
from ml.release.official_reader import SplitRule, iter_release
from tests.fixtures.release import pack, release_files, two_archives

NUM_IMAGES = 17
REASONS = {
    "laion_split_00001_s4": "exclusion_list",
    "laion_split_00002_s1": "no_annotation",
    "laion_split_00002_s2": "no_image",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return release_files(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def unpacked(files, tmp_path):
    root = tmp_path / "VGGHeads"
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def read(sources):
    exclusions = Exclusions("read")
    found = {
        sample.sample_id: (sample.split_name, sample.jpeg, sample.labels.flame.tobytes())
        for part in iter_release(sources, exclusions)
        for sample in part
    }
    rows = exclusions.to_frame()
    return found, dict(zip(rows["sample_id"], rows["reason"], strict=True))


@pytest.mark.parametrize("mode", ["w", "w:xz"])
def test_folder_one_tar_and_cut_tars_give_the_same(files, unpacked, tmp_path, mode):
    expected = read(unpacked)
    assert expected[1] == REASONS
    assert len(expected[0]) == NUM_IMAGES
    parts = {part for part, _, _ in expected[0].values()}
    assert parts == {"split_00000", "split_00001", "split_00002", "small"}
    assert read(pack(files, tmp_path / "whole.tar", mode)) == expected
    archives = two_archives(files, tmp_path / "mirror")
    assert read(archives) == expected
    assert read(archives[::-1]) == expected
    # A folder of archives, and an unpacked part beside the tar of another.
    assert read(tmp_path / "mirror") == expected
    assert not list(tmp_path.glob(".tmp-*"))


def test_nothing_is_unpacked(files, tmp_path, monkeypatch):
    archives = two_archives(files, tmp_path / "mirror")
    size = sum(path.stat().st_size for path in archives)
    spool = tmp_path / "spool"
    spool.mkdir()
    release = Release(archives, spool, Exclusions("read"))
    written = sum(path.stat().st_size for path in spool.rglob("*") if path.is_file())
    assert 0 < written < size / 4, "lists alone"
    assert release.parts == ["split_00000", "split_00001", "split_00002", "small"]


def test_the_small_part_alone_in_any_of_its_folders(files, tmp_path):
    small = {name: data for name, data in files.items() if name.startswith("small/")}
    deeper = {name.replace("small/", "small/train/"): data for name, data in small.items()}
    for number, (given, part) in enumerate(((small, "small"), (deeper, "small/train"))):
        found, excluded = read(pack(given, tmp_path / f"{number}.tar"))
        assert len(found) == 5
        assert not excluded
        assert {place for place, _, _ in found.values()} == {part}
        root = tmp_path / str(number)
        for name, data in given.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        assert read(root)[0] == read(root / "small")[0] == found


def why_excluded(sources, sample_id):
    """The detail for an image of which there are two; its annotation is then without image."""
    exclusions = Exclusions("read")
    for part in iter_release(sources, exclusions):
        list(part)
    rows = exclusions.to_frame()
    rows = rows[rows["sample_id"] == sample_id]
    assert rows["reason"].tolist() == ["shared_name", "no_image"]
    assert sample_id in rows["detail"].iloc[1]
    return rows["detail"].iloc[0]


def test_copies_count_once_and_differing_ones_not_at_all(files, tmp_path):
    first, second = two_archives(files, tmp_path / "mirror")
    overlap = next(name for name in files if name.startswith("large/split_00000/images"))
    other = {overlap: files[overlap] + b"\0" * 9}
    sources = [first, second, pack(other, tmp_path / "third.tar")]
    found, _ = read(sources)
    assert len(found) == NUM_IMAGES - 1
    assert Path(overlap).stem not in found
    assert f"{first.name} and again in third.tar" in why_excluded(sources, Path(overlap).stem)


def test_a_name_twice_in_one_tar_is_not_used_at_all(files, tmp_path):
    name = next(name for name in files if name.startswith("large/split_00000/images"))
    path = pack(files, tmp_path / "whole.tar")
    pack({name: files[name][::-1]}, path, "a")
    found, _ = read(path)
    assert Path(name).stem not in found
    assert len(found) == NUM_IMAGES - 1
    assert "whole.tar and again in whole.tar" in why_excluded(path, Path(name).stem)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("large/split_00007/images/a.jpg", ("split_00007", "images", ())),
        ("./VGGHeads/large/split_00007/annotations/a.npz",
         ("split_00007", "annotations", ("VGGHeads",))),
        ("split_00007/files.txt", ("split_00007", "lists", ())),
        ("x/test/split_00000/metrics.json", ("test/split_00000", "lists", ("x",))),
        ("VGGHeads/small/images/a.jpg", ("small", "images", ("VGGHeads",))),
        ("small/val/annotations/a.npz", ("small/val", "annotations", ())),
        ("small/val_files.txt", ("small", "lists", ())),
        ("small/a/b/images/a.jpg", None),
        ("large/split_00007/other/a.jpg", None),
        ("large/split_00007/images/deeper/a.jpg", None),
        ("large/split_7/images/a.jpg", None),
        ("/large/split_00007/images/a.jpg", None),
        ("large/split_00007/images/../../a.jpg", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_a_path_is(path, expected):
    assert part_of(path) == expected


def test_splits_of_parts():
    rule = SplitRule((0,), (1,), {"val": 0.5, "test": 0.25})
    assert [rule.of(f"split_0000{n}", "a") for n in range(3)] == ["val", "test", "train"]
    assert rule.of("test/split_00000", "a") == "test"
    assert rule.of("small/val", "a") == "val"
    assert rule.of("small", "a", "train") == "train"
    ids = [f"i{n}" for n in range(400)]
    drawn = [rule.of("small", name) for name in ids]
    assert drawn == [rule.of("small", name) for name in ids]
    assert 0.4 < drawn.count("val") / 400 < 0.6
    assert 0.15 < drawn.count("test") / 400 < 0.35
    # Where the split to validate on is missing, a part of the others takes its place.
    rule = SplitRule((0,), (1,), {"val": 0.5, "test": 0.25}, ("val",))
    drawn = [rule.of("split_00009", name) for name in ids]
    assert 0.4 < drawn.count("val") / 400 < 0.6
    assert drawn.count("test") == 0


def test_lists_of_small_say_what_is_for_what(files, tmp_path):
    small = {name: data for name, data in files.items() if name.startswith("small/")}
    stems = sorted(Path(name).stem for name in small if name.endswith(".jpg"))
    small["small/val_files.txt"] = f"{stems[0]}.jpg\n".encode()
    small["small/train_files.txt"] = "\n".join(f"{stem}.jpg" for stem in stems[1:]).encode()
    import_official(pack(small, tmp_path / "s.tar"), tmp_path / "out")
    images = read_stage(Workspace(tmp_path / "out", 0, 1, 1), "images", IMAGES)
    splits = dict(zip(images["sample_id"], images["split"], strict=True))
    assert splits == {stems[0]: "val", **dict.fromkeys(stems[1:], "train")}


def test_a_killed_import_goes_on_where_it_was(files, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    import_official(two_archives(files, tmp_path / "mirror"), whole)
    ws = Workspace(tmp_path / "killed", 0, 1, 1)
    work = ws.work_dir("import_official")
    seen, iter_part = [], official_import.iter_part

    def run():
        exclusions = Exclusions("import_official")
        release = Release([tmp_path / "mirror"], work, exclusions)
        return import_release(release, ws, work, SplitRule(), "flame-2020", exclusions)

    def dies(files, exclusions):
        seen.append(files.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return iter_part(files, exclusions)

    monkeypatch.setattr(official_import, "iter_part", dies)
    with pytest.raises(KeyboardInterrupt):
        run()
    found = run()
    assert seen == ["split_00000", "split_00001", "split_00002", "split_00002", "small"]
    assert found.counts.total() == NUM_IMAGES
    assert list(found.shards.values()) == ["split_00000", "split_00001", "split_00002", "small"]
    for name in ("heads.parquet", "verdicts.parquet"):
        path = ws.stage_dir("filtered_dataset") / name
        assert path.read_bytes() == (whole / "data/filtered_dataset" / name).read_bytes()
    heads = read_table(ws.stage_dir("filtered_dataset") / "heads.parquet", DATASET_HEADS)
    verdicts = read_table(ws.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    counts = heads.groupby("sample_id").size()
    np.testing.assert_array_equal(counts[verdicts["sample_id"]], verdicts["num_heads"])


def test_an_image_that_the_import_loses_is_named(files, tmp_path, monkeypatch):
    iter_part = official_import.iter_part

    def loses_one(part, exclusions):
        samples = iter_part(part, exclusions)
        lost.append(next(samples).sample_id)
        return samples

    lost = []
    monkeypatch.setattr(official_import, "iter_part", loses_one)
    with pytest.raises(LostSamples) as error:
        import_official(two_archives(files, tmp_path / "mirror"), tmp_path / "out")
    assert str(error.value).endswith(f"neither used nor excluded: {lost[0]}")


def lacks_of(sources, tmp_path, sums=True):
    release = Release(sources, tmp_path, Exclusions("check"))
    rows = what_lacks(release, sources, sums)
    return [tuple(row) for row in rows.itertuples(index=False)]


def test_what_a_copy_lacks(files, tmp_path):
    archives = two_archives(files, tmp_path / "mirror")
    assert lacks_of(archives, tmp_path) == [
        ("splits", "large", "97 of 100 are missing: 3 to 99"),
        ("annotation", "split_00002", "1 missing: of laion_split_00002_s1.jpg"),
        ("image", "split_00002", "1 missing: of laion_split_00002_s2.npz"),
        ("images", "large", "12 images with annotation of 1,022,944 that were published"),
    ]
    large = {n: d for n, d in files.items() if n.startswith("large/split_00000")}
    rows = lacks_of([pack(large, tmp_path / "large.tar")], tmp_path)
    assert ("part", "small", "the images labelled manually are missing") in rows


def test_sums_are_compared(files, tmp_path):
    first, second = two_archives(files, tmp_path / "mirror")
    good = hashlib.md5(first.read_bytes()).hexdigest()
    sums = tmp_path / "mirror" / "MD5SUMS"
    sums.write_text(
        f"{good.upper()}  {first.name}\n{'0' * 32} *{second.name}\n{good}  VGGHeads_2.tar\n\n"
        f"what\n{good}  ../large.tar\n"
    )
    rows = [row for row in lacks_of([first, second], tmp_path) if row[0] in ("file", "MD5SUMS")]
    altered = hashlib.md5(second.read_bytes()).hexdigest()
    assert rows == [
        ("file", second.name, f"its MD5 is {altered}, published {'0' * 32}"),
        ("file", "VGGHeads_2.tar", "is listed in MD5SUMS and missing"),
        ("MD5SUMS", "MD5SUMS", "line 5: expected a sum and a name, got 'what'"),
        ("MD5SUMS", "../large.tar", "line 6 leads out of mirror"),
    ]
    # The folder of the archives, once, whatever it is given as.
    assert [r for r in lacks_of([tmp_path / "mirror"], tmp_path) if r[0] == "file"] == rows[:2]
    assert not [r for r in lacks_of([first], tmp_path, sums=False) if r[0] == "file"]


def test_a_cut_archive_is_named(files, tmp_path):
    first, _ = two_archives(files, tmp_path / "mirror")
    first.write_bytes(first.read_bytes()[:-20_000])
    tars = [row for row in lacks_of([first], tmp_path) if row[0] == "tar"]
    assert len(tars) == 1
    assert "VGGHeads_0.tar" in tars[0][2]


def test_a_file_of_which_a_cut_archive_has_a_part_is_not_listed(files, tmp_path):
    first, _ = two_archives(files, tmp_path / "mirror")
    with tarfile.open(first) as tar:
        last = tar.getmembers()[-1]
    first.write_bytes(first.read_bytes()[: last.offset_data + last.size // 2])
    release = Release([first], tmp_path, Exclusions("check"))
    parts = [release.files(part) for part in release.parts]
    listed = {file.name for part in parts for file in (*part.images, *part.annotations)}
    assert len(listed) > 10
    assert Path(last.name).name not in listed
    assert any(last.name in text for text in release.damaged)


def test_what_is_no_release_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        NotARelease, match="no folder split_00000 in it or in its large/, no small/"
    ):
        read(tmp_path / "empty")
