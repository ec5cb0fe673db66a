import pickle
import zipfile
from copy import deepcopy

import pytest
import torch
from torch import nn

from ml.model import weights
from ml.model.building import build_detector, model_config
from ml.model.checkpoint_file import UnusableCheckpoint, read_checkpoint_tensors
from ml.model.config import ModelConfig
from ml.model.decode import decode
from ml.model.fusing import fuse
from ml.model.weights import import_published, initialise_from, is_head_detector

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def config(tiny) -> ModelConfig:
    """A small model whose branches mean what the published ones do."""
    head = tiny.head.model_copy(update={"swapped_branches": True})
    return tiny.model_copy(update={"head": head})


@pytest.fixture(scope="module")
def original(config):
    torch.manual_seed(1)
    model = build_detector(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(IMAGES)
    return model.eval()


def published_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's entries with the dead placeholders that published files have."""
    state = dict(model.state_dict())
    for name in list(state):
        if name.endswith("branch_3x3.conv.weight"):
            stem = name.removesuffix("branch_3x3.conv.weight")
            state[stem + "rbr_reparam.weight"] = torch.zeros_like(state[name])
            state[stem + "rbr_reparam.bias"] = torch.zeros(len(state[name]))
    return state


class Traced(nn.Module):
    """What the official export traces: the model and its decoding."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.post_process = nn.Module()
        self.post_process.register_buffer("max_batch", torch.zeros(3))

    def forward(self, images):
        return tuple(decode(self.model(images)))


def assert_same(model: nn.Module, original: nn.Module) -> None:
    # In float64, so that only the weights' own rounding is compared: the scale is an exponential.
    images, original, model = IMAGES.double(), deepcopy(original).double(), model.double()
    with torch.no_grad():
        expected, found = decode(original(images)), decode(model(images))
        other = decode(original(1 - images))
    assert (other.flame - expected.flame).abs().max() > 0.1  # the model is not blind
    for part, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("layout", ["bare", "net", "ema_net", "module"])
def test_state_dicts_of_every_layout(layout, config, original, tmp_path):
    state = published_state(original)
    other = {name: torch.zeros_like(t) for name, t in state.items()}
    content = {
        "bare": state,
        "net": {"net": state, "acc": 0.5, "epoch": 3, "packages": {"torch": "1.13"}},
        "ema_net": {"net": other, "ema_net": state, "optimizer_state_dict": {"state": {}}},
        "module": {"net": {f"module.{name}": t for name, t in state.items()}},
    }[layout]
    torch.save(content, tmp_path / "ckpt.pth")
    plain = config.model_copy(
        update={"head": config.head.model_copy(update={"swapped_branches": False})}
    )
    model = import_published(tmp_path / "ckpt.pth", plain)
    assert model.config.head.swapped_branches
    assert_same(model, original)


def test_fused_state_dict(config, original, tmp_path):
    torch.save(fuse(original, "partial").state_dict(), tmp_path / "fused.pth")
    model = import_published(tmp_path / "fused.pth", config)
    assert not [name for name in model.state_dict() if "branch_3x3" in name]
    assert_same(model, original)


@pytest.mark.filterwarnings("ignore")  # tracing warns of the checks of shapes
def test_torchscript_file(config, original, tmp_path):
    path = tmp_path / "model.trcd"
    torch.jit.save(torch.jit.trace(Traced(original), IMAGES, check_trace=False), path)
    assert "post_process.max_batch" in read_checkpoint_tensors(path)
    assert_same(import_published(path, config), original)


def test_the_size_is_found_out(tmp_path):
    torch.save(
        {"backbone.stage1.blocks.conv3.conv.weight": torch.zeros(96, 256, 1, 1)}, tmp_path / "m"
    )
    with pytest.raises(
        UnusableCheckpoint, match="is not a M head detector: 1 loaded; 1444 missing"
    ):
        import_published(tmp_path / "m")
    torch.save({"backbone.other": torch.zeros(3)}, tmp_path / "x")
    with pytest.raises(UnusableCheckpoint, match="size S, M or L, got stage 1 of shape None"):
        import_published(tmp_path / "x")


def test_initialisation_takes_what_fits(config, original, tmp_path):
    state = {n: t for n, t in published_state(original).items() if ".flame_" not in n}
    state["heads.head1.cls_pred.weight"] = torch.zeros(80, 32, 1, 1)
    state["heads.head1.stem.seq.conv.weight"] = torch.zeros(3)
    torch.save({"net": state}, tmp_path / "coco.pth")
    model = build_detector(config)
    report = initialise_from(model, tmp_path / "coco.pth")
    assert report.mismatched == ("heads.head1.cls_pred.weight",)
    assert report.unexpected == ("heads.head1.stem.seq.conv.weight",)
    assert report.missing
    assert all(".flame_" in name for name in report.missing)
    assert "1 mismatched (heads.head1.cls_pred.weight)" in str(report)
    name = "backbone.stem.conv.branch_1x1.weight"
    torch.testing.assert_close(model.state_dict()[name], original.state_dict()[name])
    torch.save({"net": {"elsewhere": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UnusableCheckpoint, match="nothing in it fits the model"):
        initialise_from(model, tmp_path / "other.pth")


def coco_state(size: str) -> dict[str, torch.Tensor]:
    """Names and shapes of YOLO-NAS on COCO: 80 classes, one stem, its own widths in the heads."""
    with torch.device("meta"):
        trunk = build_detector(model_config(size)).state_dict()
        state = {name: t for name, t in trunk.items() if not name.startswith("heads.")}
        multiplier = {"S": 0.5, "M": 0.75, "L": 1.0}[size]
        for number, width in enumerate((128, 256, 512), start=1):
            head, inner = f"heads.head{number}", int(width * multiplier)
            neck = trunk[f"{head}.bbox_stem.seq.conv.weight"].shape[1]
            state[f"{head}.stem.seq.conv.weight"] = torch.empty(inner, neck, 1, 1)
            for branch in ("cls_convs.0", "reg_convs.0"):
                state[f"{head}.{branch}.seq.conv.weight"] = torch.empty(inner, inner, 3, 3)
                for part in ("weight", "bias", "running_mean", "running_var"):
                    state[f"{head}.{branch}.seq.bn.{part}"] = torch.empty(inner)
                state[f"{head}.{branch}.seq.bn.num_batches_tracked"] = torch.empty(())
            for name, channels in (("cls_pred", 80), ("reg_pred", 68)):
                state[f"{head}.{name}.weight"] = torch.empty(channels, inner, 1, 1)
                state[f"{head}.{name}.bias"] = torch.empty(channels)
        dead = [n for n in state if n.endswith("branch_3x3.conv.weight")]
        for name in dead:
            stem = name.removesuffix("branch_3x3.conv.weight")
            state[stem + "rbr_reparam.weight"] = torch.empty_like(state[name])
            state[stem + "rbr_reparam.bias"] = torch.empty(len(state[name]))
    return state


@pytest.mark.parametrize(("size", "scales"), [("S", ()), ("M", (2,)), ("L", (1, 2, 3))])
def test_of_yolo_nas_on_coco_the_trunk_and_the_heads_of_equal_width_are_taken(
    size, scales, monkeypatch, tmp_path
):
    """Which tensors the official training takes: all below the heads, of these what fits."""
    state = coco_state(size)
    monkeypatch.setattr(weights, "read_checkpoint_tensors", lambda path: state)
    with torch.device("meta"):
        model = build_detector(model_config(size))
    report = initialise_from(model, tmp_path / f"yolo_nas_{size.lower()}_coco.pth")
    own = set(model.state_dict())
    trunk = {name for name in own if name.startswith(("backbone.", "neck."))}
    same = {"cls_convs", "reg_convs", "reg_pred"}
    heads = {n for n in own if n.split(".")[2:3] and n.split(".")[2] in same}
    fitting = {n for n in heads if int(n.split(".")[1].removeprefix("head")) in scales}
    # A bias of 68 numbers and a counter fit whatever the width.
    fitting |= {n for n in heads if n.endswith(("reg_pred.bias", "num_batches_tracked"))}
    assert set(report.loaded) == trunk | fitting
    assert {n.split(".", 2)[2] for n in report.mismatched} >= {"cls_pred.weight", "cls_pred.bias"}
    assert set(report.unexpected) == {f"heads.head{n}.stem.seq.conv.weight" for n in (1, 2, 3)}
    assert not [name for name in report.loaded if "rbr_reparam" in name]


def test_a_head_detector_is_not_taken_for_another_task(config, original, tmp_path):
    torch.save({"ema_net": published_state(original)}, tmp_path / "vgg_heads.pth")
    assert is_head_detector(tmp_path / "vgg_heads.pth")
    with pytest.raises(UnusableCheckpoint, match="jaw and rotation would come from the wrong"):
        initialise_from(build_detector(config), tmp_path / "vgg_heads.pth")


class Malicious:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, target) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_a_malicious_checkpoint_runs_nothing_and_is_refused(tmp_path):
    target = tmp_path / "written"
    torch.save({"net": {"w": torch.zeros(2)}, "extra": Malicious(target)}, tmp_path / "bad.pth")
    with pytest.raises(
        UnusableCheckpoint, match=r"bad.pth: it names \w+.open, .* nothing of it was run"
    ):
        read_checkpoint_tensors(tmp_path / "bad.pth")
    assert not target.exists()


def test_other_libraries_objects_are_not_in_the_way(tmp_path):
    import numpy as np

    content = {"net": {"w": torch.arange(3.0)}, "acc": np.float64(0.5), "metrics": np.zeros(3)}
    torch.save(content, tmp_path / "c.pth")
    assert read_checkpoint_tensors(tmp_path / "c.pth")["w"].tolist() == [0, 1, 2]


def test_unreadable_files_are_named_with_the_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_checkpoint_tensors(tmp_path / "none.pth")
    whole = tmp_path / "whole.pth"
    torch.save({"net": {"w": torch.zeros(1000)}}, whole)
    short = tmp_path / "short.pth"
    short.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(UnusableCheckpoint, match=r"short.pth: expected a zip archive"):
        read_checkpoint_tensors(short)
    old = tmp_path / "old.pth"
    old.write_bytes(pickle.dumps({"net": {}}))
    with pytest.raises(UnusableCheckpoint, match="expected a zip archive"):
        read_checkpoint_tensors(old)
    empty = tmp_path / "empty.pth"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UnusableCheckpoint, match=r"expected <name>/data\.pkl"):
        read_checkpoint_tensors(empty)
    torch.save({"epoch": 3}, tmp_path / "none")
    with pytest.raises(UnusableCheckpoint, match="found none; the keys are epoch"):
        read_checkpoint_tensors(tmp_path / "none")
    lying = tmp_path / "lying.pth"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(lying, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, content[:16] if "/data/" in name else content)
    with pytest.raises(UnusableCheckpoint, match=r"lying.pth: a tensor .* larger than its storage"):
        read_checkpoint_tensors(lying)


def test_published_sizes_have_distinct_marks():
    shapes = set()
    for size in ("S", "M", "L"):
        with torch.device("meta"):
            shapes.add(
                build_detector(model_config(size)).backbone.stage1.blocks.conv3.conv.weight.shape
            )
    assert len(shapes) == 3
