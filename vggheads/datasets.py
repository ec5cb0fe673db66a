"""Reading data: shards of images and their tables, and the published release."""

from __future__ import annotations

from ml.records.shards import DamagedSample, ShardReader
from ml.records.tables import CAPTIONS, HEADS, IMAGES, VERDICTS, read_table
from ml.release.official_reader import OfficialSample, iter_release
from ml.training_data.labels import HeadLabels
from ml.training_data.samples import HeadSample, HeadSamples

__all__ = [
    "CAPTIONS",
    "HEADS",
    "IMAGES",
    "VERDICTS",
    "DamagedSample",
    "HeadLabels",
    "HeadSample",
    "HeadSamples",
    "OfficialSample",
    "ShardReader",
    "iter_release",
    "read_table",
]
