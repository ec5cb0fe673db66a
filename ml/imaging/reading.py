"""Reading the images of a shard: unreadable ones become exclusions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.imaging.io import UnreadableImage, decode_image
from ml.records import reasons
from ml.records.exclusions import Exclusions
from ml.records.shards import DamagedSample, ShardReader


def read_image(
    reader: ShardReader, sample_id: str, exclusions: Exclusions
) -> NDArray[np.uint8] | None:
    """Read and decode one image of a shard, or exclude it.

    Args:
        reader: the open shard.
        sample_id: which sample.
        exclusions: receives the sample with `DAMAGED_SHARD` when the shard does not hold its
            bytes, with `DAMAGED_IMAGE` when they cannot be decoded.

    Returns:
        (H, W, 3) uint8 RGB; None when it is excluded.
    """
    try:
        return decode_image(reader.read(sample_id))
    except DamagedSample as error:
        exclusions.add(sample_id, reasons.DAMAGED_SHARD, str(error))
    except UnreadableImage as error:
        where = f"{reader.path.name}/{sample_id}.jpg"
        exclusions.add(sample_id, reasons.DAMAGED_IMAGE, f"{where}: {error}")
    return None
