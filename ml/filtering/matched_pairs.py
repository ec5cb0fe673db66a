"""Figure 6 of the paper: generated faces next to the known ones that they resemble.

The pages support the choice of the threshold, on the machine that stores the index. They show
faces of real people and are written to `private/`, which is ignored by git and by all exports.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ml.filtering.embedding import FaceReader
from ml.filtering.identity import IdentityIndex, iter_images
from ml.imaging.grids import contact_sheet
from ml.imaging.io import UnreadableImage, decode_image, encode_jpeg
from ml.imaging.reading import read_image
from ml.records import reasons
from ml.records.atomic import atomic_folder, write_bytes, write_text
from ml.records.exclusions import Exclusions
from ml.records.progress import progress
from ml.records.shards import ShardReader
from ml.records.tables import VERDICTS, read_table
from ml.records.workspace import Workspace

PRIVATE: Final = "private"
_CELL_PX: Final = 220


@dataclass(frozen=True)
class MatchedPair:
    """An image and the known face that one of its faces resembles most.

    Attributes:
        sample_id: the image.
        shard: the tar shard that holds it.
        similarity: cosine.
        source: sha256 of the known image.
    """

    sample_id: str
    shard: str
    similarity: float
    source: str


@dataclass(frozen=True)
class Matches:
    """Pairs, and the number of images behind them.

    Attributes:
        pairs: the most alike first.
        verdicts: verdict of the filtered dataset -> images; `keep` for those that stay.
        unreadable: images removed as known identities that cannot be read.
        without_face: of those, images in which the index's reader finds no face now.
        beyond: pairs that were found and exceed the number asked for.
    """

    pairs: tuple[MatchedPair, ...]
    verdicts: Mapping[str, int]
    unreadable: int = 0
    without_face: int = 0
    beyond: int = 0

    def account(self) -> str:
        """Return how many pairs there are, of how many images, and why not more."""
        judged = sum(self.verdicts.values())
        known = self.verdicts.get(reasons.KNOWN_IDENTITY, 0)
        text = f"{len(self.pairs)} pairs: the filters removed {known} of {judged} images as "
        text += "known identities"
        lost = {
            "unreadable": self.unreadable,
            "without a face for the index's reader": self.without_face,
            "beyond the number asked for": self.beyond,
        }
        if left := [f"{number} {what}" for what, number in lost.items() if number]:
            text += f", of them {', '.join(left)}"
        if not known:
            others = sorted(self.verdicts.items(), key=lambda item: (-item[1], item[0]))
            text += f"; verdicts: {', '.join(f'{name} {n}' for name, n in others) or 'none'}"
        return text


def find_pairs(
    ws: Workspace, index: IdentityIndex, reader: FaceReader, count: int, exclusions: Exclusions
) -> Matches:
    """Find the most alike of the images that the identity screen removed.

    Args:
        ws: the workspace; reads `filtered_dataset` and `images`.
        index: the known faces.
        reader: finds and embeds faces; the index's own.
        count: most pairs.
        exclusions: receives images that cannot be read.

    Returns:
        Pairs, the most alike first, and what became of the other images.
    """
    verdicts = read_table(ws.stage_dir("filtered_dataset") / "verdicts.parquet", VERDICTS)
    removed = verdicts[verdicts["reason"] == reasons.KNOWN_IDENTITY]
    pairs, unreadable, without_face = [], 0, 0
    for shard, rows in removed.groupby("shard", sort=True):
        with ShardReader(ws.stage_dir("images") / f"{shard}.tar") as tar:
            for sample_id in progress(rows["sample_id"].tolist(), f"matched pairs {shard}"):
                image = read_image(tar, sample_id, exclusions)
                if image is None:
                    unreadable += 1
                    continue
                faces = reader.read(image)
                if not len(faces):
                    without_face += 1
                    continue
                alike, nearest = index.nearest(faces)
                best = int(alike.argmax())
                source = str(index.sources[nearest[best]])
                pairs.append(MatchedPair(str(sample_id), str(shard), float(alike[best]), source))
    pairs.sort(key=lambda pair: (-pair.similarity, pair.sample_id))
    return Matches(
        tuple(pairs[:count]),
        {str(reason): int(number) for reason, number in verdicts["reason"].value_counts().items()},
        unreadable,
        without_face,
        max(len(pairs) - count, 0),
    )


def write_pairs(ws: Workspace, matches: Matches, known: Path, threshold: float, name: str) -> Path:
    """Write the page and its images.

    Args:
        ws: the workspace.
        matches: from `find_pairs`.
        known: the folder that the index was made of; an image that is gone from it is left blank.
        threshold: the one in use.
        name: of the folder inside `private/`.

    Returns:
        The page.
    """
    folder = ws.root / PRIVATE / name
    pairs = matches.pairs
    paths = _by_hash(known, {pair.source for pair in pairs})
    blank = np.full((_CELL_PX, _CELL_PX, 3), 128, np.uint8)
    figures = []
    with atomic_folder(folder) as unfinished:
        for number, pair in enumerate(pairs):
            with ShardReader(ws.stage_dir("images") / f"{pair.shard}.tar") as tar:
                mine = decode_image(tar.read(pair.sample_id))
            theirs = decode_image(paths[pair.source]) if pair.source in paths else blank
            file = f"{number:04d}.jpg"
            write_bytes(unfinished / file, encode_jpeg(contact_sheet([mine, theirs], 2, _CELL_PX)))
            text = f"{html.escape(pair.sample_id)}: similarity {pair.similarity:.3f}"
            figures.append(f'<figure><img src="{file}" alt=""><figcaption>{text}</figcaption>')
        write_text(unfinished / "index.html", _page(figures, threshold, matches.account()))
    return folder / "index.html"


def _by_hash(known: Path, wanted: set[str]) -> Mapping[str, Path]:
    found = {}
    for path in progress(iter_images(known), "known images"):
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest in wanted:
                decode_image(path)
                found[digest] = path
        except UnreadableImage:
            continue  # it was none when the index was made either
    return found


def _page(figures: list[str], threshold: float, account: str) -> str:
    style = (
        "body{font:15px system-ui;margin:24px}main{display:flex;flex-wrap:wrap;gap:18px}"
        "figure{margin:0}p{max-width:60rem}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Matched pairs</title>'
        f"<style>{style}</style><h1>{len(figures)} matched pairs</h1>"
        "<p><b>Not to be given away:</b> the right image of each pair shows a real person. Left: "
        f"an image that the identity screen removed, at {threshold:.3f} or more.</p>"
        f"<p>{html.escape(account)}.</p>"
        f"<main>{'</figure>'.join([*figures, ''])}</main></html>\n"
    )
