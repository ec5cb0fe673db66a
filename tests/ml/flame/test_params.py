import numpy as np
import pytest
import torch

from ml.flame.params import (
    EXPRESSION,
    JAW,
    NUM_PARAMETERS,
    ROTATION,
    SCALE,
    SHAPE,
    TRANSLATION,
    FlameParameters,
    check_flame,
    join,
    split,
)


def test_slices_tile_the_vector_in_order():
    covered = np.concatenate(
        [np.arange(413)[s] for s in (SHAPE, EXPRESSION, JAW, ROTATION, TRANSLATION, SCALE)]
    )
    assert covered.tolist() == list(range(NUM_PARAMETERS))


@pytest.mark.parametrize("leading", [(), (1,), (2, 3)])
def test_join_undoes_split_for_arrays_and_tensors(leading):
    flame = np.random.default_rng(0).standard_normal((*leading, 413)).astype(np.float32)
    assert np.array_equal(join(split(flame)), flame)
    tensor = torch.as_tensor(flame)
    assert torch.equal(join(split(tensor)), tensor)


def test_split_names_the_parts():
    parts = split(np.arange(413.0))
    assert parts.jaw.tolist() == [400, 401, 402]
    assert parts.rotation[0] == 403
    assert parts.translation.tolist() == [409, 410, 411]
    assert parts.scale.tolist() == [412]


def test_join_pads_short_coefficients_with_zeros():
    parts = FlameParameters(*(torch.ones(2, n) for n in (64, 32, 3, 6, 3, 1)))
    flame = join(parts)
    assert flame.shape == (2, 413)
    assert flame[:, :64].eq(1).all()
    assert flame[:, 64:300].eq(0).all()
    assert flame[:, 300:332].eq(1).all()
    assert flame[:, 332:400].eq(0).all()


def test_wrong_length_says_what_belongs_there():
    message = (
        r"flame: last dimension must be 413 \(300 shape \+ 100 expression \+ 3 jaw \+ 6 rotation "
        r"\+ 3 translation \+ 1 scale\), got \(8, 412\)"
    )
    with pytest.raises(ValueError, match=message):
        check_flame(np.zeros((8, 412)))
    with pytest.raises(ValueError, match="413"):
        split(torch.zeros(()))


@pytest.mark.parametrize(("part", "size"), [(0, 301), (1, 101), (2, 2), (3, 7), (5, 2)])
def test_join_refuses_parts_of_the_wrong_size(part, size):
    parts = [torch.zeros(1, n) for n in (300, 100, 3, 6, 3, 1)]
    parts[part] = torch.zeros(1, size)
    with pytest.raises(ValueError, match=f"flame {FlameParameters._fields[part]}: last dimension"):
        join(FlameParameters(*parts))
