"""Speed of the DAD-3DHeads metrics of one head against loops over its vertices.

    python -m benchmarks.dad_metrics

Both compute the depth order as stated and as published (head with ears), and both forms of the
Chamfer distance (true face vertices to all predicted vertices), on the embedded head model with
noise; the loops are in `benchmarks/twins.py`. The largest difference of the results is printed.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks import twins
from benchmarks.report import parser_of, start
from ml.benchmarks.alignment import fit_similarity
from ml.benchmarks.metrics_dad import (
    INNER_EYE_DISTANCE,
    SEVEN,
    DadPrediction,
    DadTopology,
    DadTruth,
    dad_errors,
)
from ml.benchmarks.timing import milliseconds
from ml.flame.open_head import build_open_head


def loops(
    truth: DadTruth, vertices: np.ndarray, seven: np.ndarray, topology: DadTopology
) -> dict[str, float]:
    """Return the four metrics, vertex by vertex."""
    world = truth.vertices_world
    true_seven = topology.landmarks(world)[list(SEVEN)]
    scale = INNER_EYE_DISTANCE / np.linalg.norm(true_seven[1] - true_seven[2])
    away = world[topology.z5_index] * [1, 1, -1]
    pair = vertices[topology.z5_index], away
    values = {"z5": twins.z_order_stated(*pair), "z5_published": twins.z_order_coded(*pair)}
    for name, may_mirror in (("chamfer", False), ("chamfer_published", True)):
        move = fit_similarity(seven, scale * true_seven, may_mirror=may_mirror)
        moved = np.array([move(vertex) for vertex in vertices])
        face = scale * world[topology.face_index]
        values[name] = twins.mean_squared_to_nearest(face, moved)
    return values


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each metric")
    parser.add_argument("--stride", type=int, default=1, help="use every n-th vertex only")
    arguments = parser.parse_args()
    start(1)
    head = build_open_head(0)
    full = DadTopology.of(head)
    topology = DadTopology(
        full.z5_index[:: arguments.stride],
        full.face_index[:: arguments.stride],
        full.landmark_corners,
        full.landmark_weights,
    )
    world = head.v_template.astype(np.float64)
    rng = np.random.default_rng(0)
    vertices = world * [1, -1, -1] + rng.normal(0, 0.001, world.shape)
    seven = topology.landmarks(vertices)[list(SEVEN)]
    truth = DadTruth(world, np.zeros((68, 2)), np.eye(3), np.array([0.0, 0.0, 1.0, 1.0]))
    prediction = DadPrediction(vertices=vertices, seven=seven)
    fast = dad_errors(truth, prediction, topology)
    slow = loops(truth, vertices, seven, topology)
    difference = max(abs(fast[name] - value) for name, value in slow.items())
    (ours,) = milliseconds(
        [lambda: dad_errors(truth, prediction, topology)], arguments.seconds, time.perf_counter
    )
    began = time.perf_counter()
    loops(truth, vertices, seven, topology)
    naive = 1000 * (time.perf_counter() - began)
    print("\n| vertices: depth order, face | loops ms | ours ms | faster | difference |")
    print("|---|---|---|---|---|")
    counts = f"{len(topology.z5_index)}, {len(topology.face_index)}"
    print(f"| {counts} | {naive:.0f} | {ours:.1f} | {naive / ours:.0f}x | {difference:.1e} |")


if __name__ == "__main__":
    main()
