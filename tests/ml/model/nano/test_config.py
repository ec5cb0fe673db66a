import pytest
from pydantic import ValidationError

from ml.model.building import model_config
from ml.model.nano.config import NanoBackboneConfig, NanoHeadConfig, NanoTrunkStageConfig


def test_branches_of_different_widths_cannot_be_shared(nano) -> None:
    values = nano.head.model_dump() | {"flame_channels": (32, 64, 64)}
    with pytest.raises(ValidationError, match=r"as many channels.*got \(32, 64, 64\)"):
        NanoHeadConfig.model_validate(values)


def test_a_published_head_is_no_nano_head() -> None:
    values = model_config("S").head.model_dump() | {"sparse_training": False}
    with pytest.raises(ValidationError, match=r"sparse_training\n.*Input should be True"):
        NanoHeadConfig.model_validate(values)


def test_nothing_but_the_stem_works_at_stride_4() -> None:
    stage = NanoTrunkStageConfig(channels=8, hidden=4, blocks=1)
    with pytest.raises(ValidationError, match="stage 1 must have stride 1, no blocks"):
        NanoBackboneConfig(stem_channels=8, stages=(stage,) * 4)
    empty = NanoTrunkStageConfig(channels=8, hidden=4, blocks=0, stride=1)
    with pytest.raises(ValidationError, match="stage 3 must have stride 2 and at least one block"):
        NanoBackboneConfig(stem_channels=8, stages=(empty, stage, empty, stage))
