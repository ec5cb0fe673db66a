import numpy as np
import pytest
import torch

from ml.flame.layer import FlameLayer
from ml.flame.params import split
from ml.flame.projection import (
    mirror_flame,
    project,
    project_flame,
    project_xy,
    transform_flame,
)
from ml.flame.rotation import matrix_from_6d, matrix_from_euler_deg, sixd_from_matrix

FRONTAL = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


@pytest.fixture(scope="module")
def layer(head_model) -> FlameLayer:
    return FlameLayer(head_model, "head")


def random_flame(count: int, dtype=torch.float32) -> torch.Tensor:
    flame = torch.zeros(count, 413, dtype=dtype)
    flame[:, :400] = torch.randn(count, 400, dtype=dtype)
    flame[:, 400:403] = 0.2 * torch.randn(count, 3, dtype=dtype)
    flame[:, 403:409] = torch.randn(count, 6, dtype=dtype)
    flame[:, 409:411] = 300 * torch.rand(count, 2, dtype=dtype)
    flame[:, 412] = 200 + 500 * torch.rand(count, dtype=dtype)
    return flame


def test_projection_without_depth_equals_that_with_it(layer):
    flame = torch.randn(4, 413)
    flame[:, 412] = torch.tensor([300.0, 5.0, 0.0, -1.0])
    parts = split(flame)
    arguments = (
        layer.vertices(flame),
        matrix_from_6d(parts.rotation),
        parts.translation,
        parts.scale,
    )
    points = project_xy(*arguments)
    torch.testing.assert_close(points, project(*arguments)[..., :2], atol=1e-4, rtol=1e-5)


def test_projection_by_hand():
    vertex = torch.tensor([[0.1, 0.2, 0.3]])
    out = project(vertex, FRONTAL, torch.tensor([50.0, 60.0, 0.0]), torch.tensor([100.0]))
    torch.testing.assert_close(out, torch.tensor([[60.0, 40.0, -30.0]]))


def test_scale_is_clamped_above_zero():
    out = project(torch.ones(1, 3), FRONTAL, torch.zeros(3), torch.tensor([-5.0]))
    torch.testing.assert_close(out, torch.tensor([[1e-8, -1e-8, -1e-8]]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vertices_m", torch.zeros(4, 2)),
        ("rotation", torch.zeros(3)),
        ("translation_px", torch.zeros(2)),
        ("scale", torch.zeros(2)),
    ],
)
def test_project_names_what_does_not_fit(name, value):
    arguments = {
        "vertices_m": torch.zeros(4, 3),
        "rotation": FRONTAL,
        "translation_px": torch.zeros(3),
        "scale": torch.ones(1),
    }
    with pytest.raises(ValueError, match=f"project: {name} must end in"):
        project(**(arguments | {name: value}))


def test_change_of_frame_moves_every_vertex_alike(layer):
    flame = random_flame(4)
    vertices = layer.vertices(flame)
    before = project_flame(vertices, flame)
    moved = transform_flame(flame, 1.7, torch.tensor([-20.0, 31.0]))
    after = project_flame(vertices, moved)
    torch.testing.assert_close(
        after[..., :2], 1.7 * before[..., :2] + torch.tensor([-20.0, 31.0]), atol=1e-2, rtol=1e-5
    )
    assert torch.equal(moved[:, :409], flame[:, :409])


def test_shift_must_be_two_numbers():
    with pytest.raises(ValueError, match="shift_px must end in 2"):
        transform_flame(torch.zeros(1, 413), 1.0, torch.zeros(3))


def test_mirror_acts_exactly_on_the_vertices(head_model):
    layer = FlameLayer(head_model).double()
    flame = random_flame(3, torch.float64)
    width = 640.0
    vertices = layer.vertices_in_image(flame)
    mirrored = layer.vertices_in_image(mirror_flame(flame, width, head_model))
    expected = vertices[:, torch.as_tensor(head_model.mirror_vertices.astype(np.int64))]
    expected = expected * torch.tensor([-1.0, 1, 1]) + torch.tensor([width, 0.0, 0.0])
    # float32 bases and a joint summed in another order: a ten-thousandth of a pixel
    torch.testing.assert_close(mirrored, expected, atol=2e-4, rtol=0)


def test_mirror_twice_is_the_identity(head_model):
    flame = random_flame(5)
    flame[:, 409] = flame[:, 409].round()
    twice = mirror_flame(mirror_flame(flame, 512.0, head_model), 512.0, head_model)
    assert torch.equal(twice, flame)


def test_mirror_flips_yaw_and_roll_and_keeps_pitch(head_model):
    flame = torch.zeros(1, 413)
    flame[:, 403:409] = sixd_from_matrix(matrix_from_euler_deg(torch.tensor([[10.0, 20.0, 30.0]])))
    flame[:, 412] = 1.0
    out = mirror_flame(flame, 100.0, head_model)
    expected = sixd_from_matrix(matrix_from_euler_deg(torch.tensor([[10.0, -20.0, -30.0]])))
    torch.testing.assert_close(out[:, 403:409], expected)


def test_mirror_matrices_take_row_vectors():
    rng = np.random.default_rng(0)

    class Maps:
        mirror_shape = rng.normal(size=(300, 300)).astype(np.float32)
        mirror_expression = rng.normal(size=(100, 100)).astype(np.float32)

    flame = random_flame(2)
    out = mirror_flame(flame, 10.0, Maps())
    for part, matrix in (
        (slice(0, 300), Maps.mirror_shape),
        (slice(300, 400), Maps.mirror_expression),
    ):
        expected = [[sum(row[i] * matrix[i, j] for i in range(len(row))) for j in (0, 1, 57)]
                    for row in flame[:, part].numpy().astype(float)]  # fmt: skip
        np.testing.assert_allclose(out[:, part][:, [0, 1, 57]], expected, rtol=1e-3, atol=1e-4)


def test_mirror_takes_matrices_too():
    class Maps:
        mirror_shape = np.diag(np.where(np.arange(300) % 2, -1.0, 1.0)).astype(np.float32)
        mirror_expression = np.ones(100, np.float32)

    flame = random_flame(2)
    out = mirror_flame(flame, 10.0, Maps())
    signs = torch.where(torch.arange(300) % 2 == 1, -1.0, 1.0)
    torch.testing.assert_close(out[:, :300], flame[:, :300] * signs)
