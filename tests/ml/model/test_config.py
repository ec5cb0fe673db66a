import json

import pytest
import torch

from ml.model.building import build_detector, model_config, read_model_config
from ml.model.fusing import count_conv_macs, count_parameters, fuse
from ml.records.config import ConfigError

# size: trainable, partially fused (paper table 8), everything folded, fused GMACs (paper table 8)
PUBLISHED = {
    "S": (17_987_822, 17_004_954, 16_983_706, 22.92),
    "M": (34_532_560, 32_378_236, 32_346_780, 52.01),
    "L": (53_872_952, 50_442_706, 50_399_922, 83.51),
}

# Some entries of the published state dicts, for S; all entries but `rbr_reparam` were compared.
S_ENTRIES = {
    "backbone.stem.conv.branch_3x3.conv.weight": (48, 3, 3, 3),
    "backbone.stem.conv.branch_3x3.bn.running_var": (48,),
    "backbone.stage1.downsample.branch_1x1.bias": (96,),
    "backbone.stage3.blocks.bottlenecks.4.cv2.post_bn.weight": (96,),
    "backbone.stage4.blocks.bottlenecks.1.alpha": (1,),
    "backbone.stage2.blocks.conv3.conv.weight": (192, 128, 1, 1),
    "backbone.context_module.cv2.conv.weight": (768, 1536, 1, 1),
    "neck.neck1.upsample.weight": (192, 192, 2, 2),
    "neck.neck1.upsample.bias": (192,),
    "neck.neck2.reduce_skip2.conv.weight": (96, 96, 1, 1),
    "neck.neck2.downsample.conv.weight": (96, 96, 3, 3),
    "neck.neck2.reduce_after_concat.conv.weight": (96, 288, 1, 1),
    "neck.neck3.blocks.bottlenecks.1.cv2.conv.weight": (64, 64, 3, 3),
    "neck.neck4.conv.conv.weight": (192, 192, 3, 3),
    "heads.head1.pose_stem.seq.conv.weight": (96, 96, 1, 1),
    "heads.head2.bbox_stem.seq.bn.num_batches_tracked": (),
    "heads.head3.cls_convs.0.seq.conv.weight": (384, 384, 3, 3),
    "heads.head3.reg_pred.weight": (68, 384, 1, 1),
    "heads.head1.flame_shape_pred.0.alpha": (1,),
    "heads.head1.flame_shape_pred.0.branch_3x3.conv.weight": (128, 96, 3, 3),
    "heads.head2.flame_shape_pred.2.weight": (64, 128, 1, 1),
    "heads.head2.flame_expression_pred.2.bias": (32,),
    "heads.head3.flame_rotation_pred.1.post_bn.running_mean": (16,),
    "heads.head3.flame_scale_pred.2.bias": (1,),
    "heads.head3.flame_translation_pred.2.weight": (3, 16, 1, 1),
    "heads.head3.flame_jaw_pred.2.weight": (3, 16, 1, 1),
}
NUM_ENTRIES = {"S": 1405, "M": 1445, "L": 1817}


@pytest.fixture(scope="module")
def models():
    with torch.device("meta"):
        return {size: build_detector(model_config(size)) for size in PUBLISHED}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameter_counts_are_the_published_ones(models, size):
    trainable, partial, full, _ = PUBLISHED[size]
    assert count_parameters(models[size]) == trainable
    assert count_parameters(fuse(models[size], "partial")) == partial
    assert count_parameters(fuse(models[size], "full")) == full


@pytest.mark.parametrize("size", PUBLISHED)
def test_macs_of_the_fused_graph_are_the_published_ones(models, size):
    fused = fuse(models[size], "partial")
    assert count_conv_macs(fused, 640) / 1e9 == pytest.approx(PUBLISHED[size][3], rel=0.005)


@pytest.mark.parametrize("size", PUBLISHED)
def test_number_of_state_dict_entries(models, size):
    assert len(models[size].state_dict()) == NUM_ENTRIES[size]


def test_state_dict_names_and_shapes_are_the_published_ones(models):
    own = {name: tuple(t.shape) for name, t in models["S"].state_dict().items()}
    assert {name: own.get(name) for name in S_ENTRIES} == S_ENTRIES
    partial = fuse(models["S"], "partial").state_dict()
    assert tuple(partial["backbone.stem.conv.rbr_reparam.weight"].shape) == (48, 3, 3, 3)
    assert "backbone.stem.conv.post_bn.weight" in partial
    assert not [name for name in partial if "branch_" in name]
    assert not [name for name in partial if name.startswith("heads.") and name.endswith("alpha")]


def test_large_branches_have_three_blocks(models):
    head = models["L"].heads.head1
    assert len(head.flame_shape_pred) == 4
    assert head.flame_shape_pred[3].out_channels == 128
    assert head.flame_expression_pred[3].out_channels == 64


def test_nano_is_small(nano):
    with torch.device("meta"):
        model = build_detector(nano)
    assert 1.5e6 < count_parameters(model) < 2.0e6
    assert count_conv_macs(model, 192) < 300e6


def test_configs_round_trip_through_json(nano, tiny):
    for config in (nano, tiny):
        assert read_model_config(json.loads(config.model_dump_json())) == config


def test_errors_say_what_is_wrong(nano):
    with pytest.raises(ValueError, match="expected one of nano, S, M, L, got 'XL'"):
        model_config("XL")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"model\.depth: unknown key"):
        read_model_config({**nano.model_dump(), "depth": 3})
