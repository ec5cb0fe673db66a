"""FID, KID and inception score of generated images against a reference (paper 5.4, table 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ml.benchmarks.feature_statistics import (
    InceptionScore,
    Moments,
    Reservoir,
    frechet_distance,
    kernel_distance,
)
from ml.benchmarks.inception import FeatureNetwork, prepare
from ml.benchmarks.scores import Scores
from ml.imaging.io import SUFFIXES, UnreadableImage, decode_image
from ml.inference.sources import expand
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng
from ml.records.progress import progress
from ml.records.tars import DamagedTar, TarReader

STAGE = "generation_quality"
PAPER_SIZE, USUAL_SIZE = 64, 2048
"""Feature sizes of the paper's FID and of the usual one."""


@dataclass
class ImageSetStatistics:
    """Statistics of a set of images.

    Attributes:
        moments: feature size -> mean and covariance.
        pool: an even sample of the largest features, for KID.
        inception_score: of the set.
        num_images: images that could be read.
        num_excluded: images that could not.
    """

    moments: dict[int, Moments]
    pool: Reservoir
    inception_score: InceptionScore
    num_images: int = 0
    num_excluded: int = 0


@dataclass(frozen=True)
class Measuring:
    """How images are turned into statistics.

    Attributes:
        network: gives features and class scores.
        sizes: feature sizes for FID; the network must provide them.
        side: of the network's input, px.
        batch_size: images at once.
        device: where the network is.
        seed: run seed of KID's sample and the splits.
    """

    network: FeatureNetwork
    sizes: tuple[int, ...] = (PAPER_SIZE, USUAL_SIZE)
    side: int = 299
    batch_size: int = 32
    device: str = "cpu"
    seed: int = 0
    exclusions: Exclusions = field(default_factory=lambda: Exclusions(STAGE))

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: the network does not give features of such a size.
        """
        lacking = sorted(set(self.sizes) - set(self.network.feature_sizes))
        if lacking or not self.sizes:
            raise ValueError(
                f"generation quality: feature sizes must be of {self.network.feature_sizes}, "
                f"got {self.sizes}"
            )


def encoded_images(source: Path, exclusions: Exclusions) -> Iterator[tuple[str, bytes | Path]]:
    """Yield names and bytes, or files, of the images of a folder, of a tar, or of a folder of tars.

    Args:
        source: a folder with images at any depth, a `.tar`, or a folder that holds `.tar` files.
        exclusions: receives tars that break; what came before the break is used.

    Yields:
        Name and file, or name and encoded bytes; sorted by path, within a tar in its order.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: a folder holds neither images nor tars, or both.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder or tar of images")
    tars = sorted(source.rglob("*.tar")) if source.is_dir() else [source]
    if source.is_dir() and not tars:
        for path in expand(source):
            file = Path(str(path))
            yield file.relative_to(source).as_posix(), file
        return
    if source.is_dir() and any(p.suffix.lower() in SUFFIXES for p in source.rglob("*")):
        raise ValueError(f"{source}: holds images and tars, expected one or the other")
    for path in tars:
        yield from _members(path, path.name, exclusions)


def _members(path: Path, place: str, exclusions: Exclusions) -> Iterator[tuple[str, bytes]]:
    try:
        with TarReader(path, stream=True) as tar:
            for member in tar:
                suffix = PurePosixPath(member.name).suffix.lower()
                if member.kind != "file" or suffix not in SUFFIXES:
                    continue
                if member.problem:
                    exclusions.add(f"{place}/{member.name}", reasons.DAMAGED_IMAGE, member.problem)
                else:
                    yield f"{place}/{member.name}", tar.read()
    except DamagedTar as error:
        exclusions.add(place, reasons.DAMAGED_TAR, str(error))


def image_statistics(
    source: Path, measuring: Measuring, limit: int | None = None, name: str = "images"
) -> ImageSetStatistics:
    """Return statistics of a set of images, one batch in memory at a time.

    Args:
        source: as in :func:`encoded_images`.
        measuring: how.
        limit: read at most this many images; all by default.
        name: of the set, for progress and the seed.

    Returns:
        The statistics; unreadable images are rows of `measuring.exclusions`.

    Raises:
        ValueError: not a single image could be read.
    """
    largest = max(measuring.sizes)
    statistics = ImageSetStatistics(
        {size: Moments(size) for size in measuring.sizes},
        Reservoir(sample_rng(measuring.seed, STAGE, f"{name}/pool")),
        InceptionScore(sample_rng(measuring.seed, STAGE, f"{name}/splits")),
    )
    before = len(measuring.exclusions)
    for batch in _batches(source, measuring, limit, name):
        with torch.inference_mode():
            features, scores = measuring.network(torch.stack(batch).to(measuring.device))
        for size, moments in statistics.moments.items():
            moments.add(features[size].cpu().numpy())
        statistics.pool.add(features[largest].cpu().numpy())
        statistics.inception_score.add(scores.cpu().numpy())
        statistics.num_images += len(batch)
    statistics.num_excluded = len(measuring.exclusions) - before
    if not statistics.num_images:
        raise ValueError(
            f"{source}: none of its images can be read ({statistics.num_excluded} excluded)"
        )
    return statistics


def _batches(
    source: Path, measuring: Measuring, limit: int | None, name: str
) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    taken = 0
    for image_id, data in progress(encoded_images(source, measuring.exclusions), name, limit):
        if limit is not None and taken == limit:
            break
        try:
            image = decode_image(data)
        except UnreadableImage as error:
            measuring.exclusions.add(image_id, reasons.DAMAGED_IMAGE, str(error))
            continue
        batch.append(prepare(image, measuring.side))
        taken += 1
        if len(batch) == measuring.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def generation_scores(
    generated: ImageSetStatistics, reference: ImageSetStatistics, seed: int = 0
) -> Scores:
    """Return FID at each feature size, KID and inception score.

    Args:
        generated: statistics of the generated images.
        reference: statistics of real images.
        seed: run seed of KID's subsets.

    Returns:
        `fid_<size>`, `kid`, `kid_std`, `inception_score`, `inception_score_std`. FID has no
        interval: it is biased by the number of images (both are counted), and drawing images again
        adds to the bias.
    """
    metrics = {
        f"fid_{size}": frechet_distance(moments, reference.moments[size])
        for size, moments in generated.moments.items()
    }
    kid, kid_std = kernel_distance(
        generated.pool.vectors(), reference.pool.vectors(), sample_rng(seed, STAGE, "kid")
    )
    score, score_std = generated.inception_score.result()
    metrics |= {"kid": kid, "kid_std": kid_std}
    metrics |= {"inception_score": score, "inception_score_std": score_std}
    few = min(generated.num_images, reference.num_images)
    notes = [
        f"fid_{size} of {few} images has a covariance of lower rank than {size}: compare it with "
        "nothing but sets of as many images"
        for size in generated.moments
        if few <= size
    ]
    if PAPER_SIZE in generated.moments:
        notes.append(
            "fid_64 is the paper's form, of 64 early features; no other work's FID compares with it"
        )
    return Scores(
        STAGE,
        metrics,
        counts={
            "num_images": generated.num_images,
            "num_reference_images": reference.num_images,
            "num_excluded": generated.num_excluded + reference.num_excluded,
        },
        notes=tuple(notes),
    )


def compare_sets(
    sources: Sequence[tuple[str, Path]],
    reference: Path,
    measuring: Measuring,
    reference_limit: int | None = None,
) -> dict[str, Scores]:
    """Return scores of several sets against one reference, whose statistics are taken once.

    Args:
        sources: title and images of each set.
        reference: images of the reference.
        measuring: how.
        reference_limit: read at most this many images of the reference; 1,500 in the paper.

    Returns:
        Title -> scores.

    Raises:
        ValueError: two sets have one title, or a set has no readable image.
    """
    titles = [title for title, _ in sources]
    if len(set(titles)) != len(titles):
        raise ValueError(f"generation quality: titles must differ, got {titles}")
    real = image_statistics(reference, measuring, reference_limit, "reference")
    return {
        title: generation_scores(
            image_statistics(path, measuring, name=title), real, measuring.seed
        )
        for title, path in sources
    }
