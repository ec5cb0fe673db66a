"""Matched pairs: the removed image next to the known face, on this machine alone."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ml.filtering.identity import IdentityIndex
from ml.filtering.matched_pairs import PRIVATE, find_pairs, write_pairs
from ml.imaging.io import decode_image, encode_png
from ml.records.exclusions import Exclusions
from ml.records.tables import IMAGES, VERDICTS, read_table, write_table
from tests.fixtures.small_dataset import draw_image

ROOT = Path(__file__).parents[3]


class Reader:
    """Takes the whole image for a face; its vector is the image made small."""

    def read(self, image):
        small = image[::30, ::30].astype(np.float32).reshape(-1) - 128
        return (small / np.linalg.norm(small))[None]


@pytest.fixture
def known(tmp_path):
    """Two known persons: one looks like image-a2, the other like no image."""
    folder = tmp_path / "known"
    folder.mkdir()
    (folder / "like_a2.png").write_bytes(encode_png(draw_image("image-a2")))
    (folder / "other.png").write_bytes(encode_png(draw_image("somebody else")))
    (folder / "broken.png").write_bytes(b"no image")
    paths = [folder / "like_a2.png", folder / "other.png"]
    embeddings = np.concatenate([Reader().read(decode_image(path)) for path in paths])
    sources = np.array([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    return folder, IdentityIndex(embeddings, "reader", sources)


def remove(ws, *names):
    path = ws.stage_dir("filtered_dataset") / "verdicts.parquet"
    verdicts = read_table(path, VERDICTS)
    gone = verdicts["sample_id"].isin(names)
    verdicts.loc[gone, ["keep", "reason"]] = [False, "known_identity"]
    write_table(path, verdicts, VERDICTS)


def test_the_most_alike_of_the_removed_come_first(dataset, known):
    _, index = known
    remove(dataset, "image-a2", "image-b2")
    found = find_pairs(dataset, index, Reader(), 10, Exclusions("t"))
    pairs = found.pairs
    assert [pair.sample_id for pair in pairs] == ["image-a2", "image-b2"]
    assert pairs[0].similarity > 0.85 > pairs[1].similarity
    assert pairs[0].source == index.sources[0]
    first = find_pairs(dataset, index, Reader(), 1, Exclusions("t"))
    assert [pair.sample_id for pair in first.pairs] == ["image-a2"]
    total = sum(found.verdicts.values())
    known_to_us = f"removed 2 of {total} images as known identities"
    assert found.account() == f"2 pairs: the filters {known_to_us}"
    beyond = "of them 1 beyond the number asked for"
    assert first.account() == f"1 pairs: the filters {known_to_us}, {beyond}"


def test_no_pair_is_accounted_for(dataset, known):
    folder, index = known
    none = find_pairs(dataset, index, Reader(), 10, Exclusions("t"))
    kept, total = none.verdicts["keep"], sum(none.verdicts.values())
    assert none.account().startswith(
        f"0 pairs: the filters removed 0 of {total} images as known identities; verdicts: keep "
        f"{kept}"
    )
    remove(dataset, "image-a2", "image-b2")

    class Faceless(Reader):
        def read(self, image):
            return super().read(image)[:0]

    unseen = find_pairs(dataset, index, Faceless(), 10, Exclusions("t"))
    assert "of them 2 without a face for the index's reader" in unseen.account()
    images = read_table(dataset.table_path("images", "shard-00000"), IMAGES)
    image = images.set_index("sample_id").loc["image-a2"]
    with (dataset.stage_dir("images") / "shard-00000.tar").open("r+b") as tar:
        tar.seek(int(image["offset"]))
        tar.write(bytes(int(image["size"])))
    damaged = find_pairs(dataset, index, Reader(), 10, Exclusions("t"))
    assert damaged.account().startswith("1 pairs: the filters removed 2 of ")
    assert "of them 1 unreadable" in damaged.account()
    page = write_pairs(dataset, damaged, folder, 0.7, "identity_pairs")
    assert f"<p>{damaged.account()}.</p>" in page.read_text()


def test_the_page_shows_both_and_stays_here(dataset, known):
    folder, index = known
    remove(dataset, "image-a2")
    matches = find_pairs(dataset, index, Reader(), 10, Exclusions("t"))
    page = write_pairs(dataset, matches, folder, 0.7, "identity_pairs")
    assert page == dataset.root / PRIVATE / "identity_pairs" / "index.html"
    text = page.read_text()
    assert "<title>Matched pairs</title>" in text
    assert "Not to be given away" in text
    assert "image-a2: similarity" in text
    assert "like_a2" not in text
    image = decode_image(page.parent / "0000.jpg")
    left, right = np.split(image.astype(float), 2, axis=1)
    assert np.abs(left - right).mean() < 12, "the same face twice"
    # A known image that is gone is left blank.
    (folder / "like_a2.png").unlink()
    page = write_pairs(dataset, matches, folder, 0.7, "identity_pairs")
    right = np.split(decode_image(page.parent / "0000.jpg"), 2, axis=1)[1]
    assert np.abs(right[60:160, 60:160].astype(int) - 128).max() < 10


def test_git_ignores_the_place():
    given = subprocess.run(
        ["git", "check-ignore", "-q", f"{PRIVATE}/identity_pairs/index.html"],
        cwd=ROOT,
        check=False,
    )
    if given.returncode == 128:
        pytest.skip("not a git checkout")
    assert given.returncode == 0
