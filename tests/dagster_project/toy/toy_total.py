"""Configuration of a stage in a file of its own, which the stage lists as code."""

from ml.records.config import StageConfig


class TotalConfig(StageConfig):
    """The term added to the sum."""

    offset: int = 0
    """Added once."""
