import numpy as np
import pytest
import torch
from smplx.lbs import lbs

from ml.flame.head_model import JAW_JOINT
from ml.flame.layer import Z_OFFSET_M, FlameLayer
from ml.flame.projection import project_flame


def oracle(head_model, shape, expression, jaw):
    """smplx.lbs with neck, eyes and global rotation at zero."""
    pose = torch.zeros(len(jaw), 15)
    pose = torch.cat([pose[:, :6], jaw, pose[:, 9:]], dim=1)
    betas = torch.zeros(len(jaw), 400)
    betas[:, : shape.shape[1]] = shape
    betas = torch.cat([betas[:, :300], expression, betas[:, 300 + expression.shape[1] :]], dim=1)
    vertices, _ = lbs(
        betas,
        pose,
        torch.as_tensor(head_model.v_template)[None],
        torch.as_tensor(head_model.shapedirs),
        torch.as_tensor(head_model.posedirs).reshape(-1, 36).T,
        torch.as_tensor(head_model.J_regressor),
        torch.tensor(head_model.parents),
        torch.as_tensor(head_model.weights),
    )
    return vertices + torch.tensor([0.0, 0.0, Z_OFFSET_M])


def random_inputs(batch, num_shape=300, num_expression=100):
    inputs = (
        torch.randn(batch, num_shape),
        torch.randn(batch, num_expression),
        0.4 * torch.randn(batch, 3),
    )
    return tuple(t.requires_grad_() for t in inputs)


@pytest.fixture(scope="module")
def layer(head_model):
    return FlameLayer(head_model)


@pytest.mark.parametrize("region", [None, "head", "eyeballs", "odd"])
@pytest.mark.parametrize(
    ("batch", "num_shape", "num_expression"),
    [(1, 300, 100), (5, 300, 100), (4, 32, 16), (2, 300, 0)],
)
def test_equals_smplx_forward_and_backward(head_model, region, batch, num_shape, num_expression):
    chosen = np.array([4000, 7, 2500, 3, 1999]) if region == "odd" else region
    layer = FlameLayer(head_model, chosen)
    inputs = random_inputs(batch, num_shape, num_expression)
    ours, theirs = layer(*inputs), oracle(head_model, *inputs)[:, layer.vertex_indices]
    assert ours.shape == (batch, layer.num_vertices, 3)
    assert (ours - theirs).abs().max() < 1e-5
    weight = torch.randn_like(theirs)
    used = [t for t in inputs if t.numel()]
    grads = zip(
        *(torch.autograd.grad((v * weight).sum(), used) for v in (ours, theirs)), strict=True
    )
    for mine, reference in grads:
        torch.testing.assert_close(
            mine, reference, atol=1e-5 * reference.abs().max().item() + 1e-6, rtol=1e-4
        )


def test_zero_parameters_give_the_template(head_model, layer):
    out = layer(torch.zeros(1, 0), torch.zeros(1, 0), torch.zeros(1, 3))[0]
    expected = head_model.v_template + np.array([0, 0, Z_OFFSET_M], np.float32)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-7)


def test_leading_coefficients_equal_zero_padding(layer):
    shape, expression, jaw = random_inputs(3, 40, 20)
    padded = layer(
        torch.nn.functional.pad(shape, (0, 260)), torch.nn.functional.pad(expression, (0, 80)), jaw
    )
    torch.testing.assert_close(layer(shape, expression, jaw), padded, atol=1e-6, rtol=0)


def test_gradcheck_in_double_precision(head_model):
    weight = head_model.weights[:, JAW_JOINT]
    half = np.flatnonzero((weight > 0.2) & (weight < 0.8))
    index = [10, half[0], np.argmax(weight), half[-1], np.argmin(weight)]
    layer = FlameLayer(head_model, index).double()
    inputs = [t.detach().double().requires_grad_() for t in random_inputs(3, 4, 3)]
    with torch.no_grad():
        inputs[2][0] = 0.0
    assert torch.autograd.gradcheck(layer, inputs)


def test_batched_equals_looped(layer):
    shape, expression, jaw = random_inputs(4)
    batched = layer(shape, expression, jaw)
    for i in range(4):
        one = layer(shape[i : i + 1], expression[i : i + 1], jaw[i : i + 1])
        torch.testing.assert_close(one[0], batched[i], atol=1e-6, rtol=0)


def test_empty_batch(layer):
    inputs = [
        t.requires_grad_() for t in (torch.zeros(0, 300), torch.zeros(0, 100), torch.zeros(0, 3))
    ]
    out = layer(*inputs)
    assert out.shape == (0, 5023, 3)
    out.sum().backward()
    assert inputs[0].grad.shape == (0, 300)


def test_opening_the_jaw_lowers_the_chin_only(head_model, layer):
    closed = layer(torch.zeros(1, 0), torch.zeros(1, 0), torch.zeros(1, 3))[0]
    opened = layer(torch.zeros(1, 0), torch.zeros(1, 0), torch.tensor([[0.3, 0.0, 0.0]]))[0]
    move = (opened - closed).detach().numpy()
    chin = np.argmin(np.linalg.norm(head_model.v_template - [0.0, -0.09, 0.05], axis=1))
    assert move[chin, 1] < -0.015
    for name in ("scalp", "eyeballs", "ears"):
        # the ears' lobes follow the jaw a little
        assert np.abs(move[head_model.regions[name]]).max() < 5e-4


def test_precision_does_not_follow_autocast(layer):
    inputs = random_inputs(2)
    plain = layer(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer(*inputs)
    assert torch.equal(plain, cast)


def test_vertices_in_image_and_landmarks(head_model, layer):
    flame = torch.randn(3, 413)
    flame[:, 412] = 300.0
    vertices = layer.vertices(flame)
    torch.testing.assert_close(layer.vertices_in_image(flame), project_flame(vertices, flame))
    corners = vertices[
        :, torch.as_tensor(head_model.faces[head_model.landmark_faces].astype(np.int64))
    ]
    expected = (corners * torch.as_tensor(head_model.landmark_barycentric)[None, :, :, None]).sum(2)
    torch.testing.assert_close(layer.landmarks(flame), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        FlameLayer(head_model, "face").landmarks_in_image(flame),
        project_flame(expected, flame),
        atol=1e-3,
        rtol=1e-5,
    )


def test_faces_are_numbered_within_the_subset(head_model):
    layer = FlameLayer(head_model, "head")
    original = layer.vertex_indices[layer.faces].numpy()
    assert np.array_equal(original, head_model.faces_of("head"))


def test_nothing_is_learned_or_saved(layer):
    assert not list(layer.parameters())
    assert not layer.state_dict()


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (((1, 301), (1, 100), (1, 3)), r"shape must be \(B, K\) with K <= 300, got \(1, 301\)"),
        (((1, 300), (100,), (1, 3)), r"expression must be \(B, K\) with K <= 100, got \(100,\)"),
        (((1, 300), (1, 100), (1, 9)), r"jaw must be \(B, 3\) axis-angle, got \(1, 9\)"),
        (((2, 300), (1, 100), (2, 3)), "batch sizes differ: shape 2, expression 1, jaw 2"),
    ],
)
def test_wrong_inputs_are_named(layer, shapes, text):
    with pytest.raises(ValueError, match=text):
        layer(*(torch.zeros(s) for s in shapes))


@pytest.mark.parametrize("vertices", [[], [5023], [-1, 2], [3, 3]])
def test_wrong_subsets_are_refused(head_model, vertices):
    with pytest.raises(ValueError, match="FlameLayer: vertices must"):
        FlameLayer(head_model, vertices)


def test_unknown_region(head_model):
    with pytest.raises(KeyError, match="no region 'tail'"):
        FlameLayer(head_model, "tail")
