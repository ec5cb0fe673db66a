"""Seconds per scan of the protocols of Feng et al. and NoW, and of the distances alone.

    python -m benchmarks.scan_metrics

The predicted mesh is the embedded head (5,023 vertices), turned, scaled and with clumsy landmarks;
the scan is points of its surface with 1.5 mm of noise, all inside the radius. The distances are
compared with trimesh, which needs rtree (`pip install rtree`) and else says not measured, on every
hundredth point. NoW's own code needs libraries that cannot be installed here: not measured.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.report import parser_of, start
from ml.benchmarks.metrics_dad import SEVEN, DadTopology
from ml.benchmarks.metrics_scan import (
    RADIUS_FACTOR,
    SCAN_PROTOCOLS,
    MeshPrediction,
    crop_scan,
    scan_errors,
)
from ml.benchmarks.surface import Surface
from ml.flame.open_head import build_open_head

EVERY = 100
NOISE_MM = 1.5


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the shortest time of a call, and its result."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - began)
    return min(times), result


def trimesh_row(
    vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, ours: np.ndarray
) -> str:
    """Return the row of trimesh's distances of every hundredth point."""
    if importlib.util.find_spec("rtree") is None:
        return "| distances, trimesh | | not measured: no rtree | |"
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    few = points[::EVERY]
    time_s, (_, distances, _) = seconds(lambda: trimesh.proximity.closest_point(mesh, few), 2)
    apart = np.abs(distances - ours[::EVERY]).max()
    return f"| distances, trimesh | {len(few)} | {time_s:.3f} | {apart:.0e} mm from ours |"


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--points", type=int, default=60_000, help="of the scan inside the radius")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    start(1)
    head = build_open_head(0)
    topology = DadTopology.of(head)
    vertices, faces = 1000.0 * head.v_template.astype(np.float64), head.faces
    seven = topology.landmarks(vertices)[list(SEVEN)]
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(faces), 12 * arguments.points)
    weights = rng.dirichlet([1, 1, 1], len(chosen))
    scan = (vertices[faces[chosen]] * weights[:, :, None]).sum(axis=1)
    scan += rng.normal(0, NOISE_MM, scan.shape)
    scan = scan[crop_scan(scan, seven, min(RADIUS_FACTOR.values()))][: arguments.points]
    mesh = MeshPrediction(0.01 * vertices @ [[0, 0, 1], [1, 0, 0], [0, 1, 0]], faces, seven)
    clumsy = topology.landmarks(mesh.vertices)[list(SEVEN)] + rng.normal(0, 0.02, (7, 3))
    mesh = MeshPrediction(mesh.vertices, faces, clumsy)

    build, surface = seconds(lambda: Surface(vertices, faces), arguments.repeats)
    surface.nearest(scan[:1])  # compile
    query, (ours, _) = seconds(lambda: surface.nearest(scan), arguments.repeats)
    print("\n| what | points | seconds | |")
    print("|---|---|---|---|")
    print(f"| tree of the mesh | | {build:.3f} | {len(faces)} triangles |")
    print(f"| distances | {len(scan)} | {query:.3f} | |")
    print(trimesh_row(vertices, faces, scan, ours))
    for protocol in SCAN_PROTOCOLS:
        if protocol == "now_metrical":
            mesh = MeshPrediction(100 * mesh.vertices, faces, 100 * mesh.seven)
        time_s, errors = seconds(
            partial(scan_errors, scan, seven, mesh, protocol),
            arguments.repeats,
        )
        median = float(np.median(errors.distances_mm))
        print(f"| `{protocol}` | {len(scan)} | {time_s:.2f} | median {median:.2f} mm |", flush=True)


if __name__ == "__main__":
    main()
