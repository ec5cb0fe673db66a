"""Vertices and triangles of the procedural head: one half is meshed, the other is its image."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.spatial import Delaunay

from ml.flame.procedural import parts
from ml.flame.procedural.meshing import IntArray, improve, recover_edges, smooth, strip, turn
from ml.flame.procedural.sampling import (
    candidates,
    direction,
    edge_length,
    front_domain,
    in_hole,
    midline,
    relax,
    skin,
)
from ml.flame.procedural.surface import (
    LATITUDE_END,
    FloatArray,
    base_points,
    domain_of,
    eye_opening,
    front_points,
    mouth_line,
    sculpt,
)

NUM_VERTICES = 5023
NUM_FACES = 9976
NUM_EYEBALLS = 1090
NUM_NECK_RING = 60
"""A closed skin with one hole of 60 edges has exactly FLAME's number of faces (Euler)."""
_NUM_FREE_EXPECTED = 1150
"""Approximate number of free vertices of a half, by which the midline is spaced."""


@dataclass
class HalfMesh:
    """Vertices of the left half (x >= 0) with names; triangles index them."""

    points: list[FloatArray] = field(default_factory=list)
    domain: list[FloatArray] = field(default_factory=list)
    count: int = 0
    names: dict[str, IntArray] = field(default_factory=dict)

    def add(self, name: str, points: FloatArray, domain: FloatArray | None = None) -> IntArray:
        """Append vertices.

        Args:
            name: name of the group; must be new.
            points: (N, 3) mm.
            domain: (N, 2) longitude and latitude, rad, for vertices of the skin sheet.

        Returns:
            (N,) indices.
        """
        index = np.arange(self.count, self.count + len(points))
        self.points.append(points)
        self.domain.append(np.full((len(points), 2), np.nan) if domain is None else domain)
        self.names[name] = index
        self.count += len(points)
        return index


@dataclass(frozen=True)
class Mesh:
    """The whole head at rest.

    Attributes:
        vertices_mm: (5023, 3) float64, mm, exactly mirror-symmetric.
        faces: (9976, 3) int64, anticlockwise seen from outside.
        mirror: (5023,) index of the mirror image of each vertex.
        names: group name -> vertex indices, both sides.
        rows: group name -> vertex indices of the left half in the order of :mod:`parts`.
        eye_angle: (545,) angle of the vertices of one eyeball from its axis, rad.
    """

    vertices_mm: FloatArray
    faces: IntArray
    mirror: IntArray
    names: dict[str, IntArray]
    rows: dict[str, IntArray]
    eye_angle: FloatArray


def build_mesh(rng: np.random.Generator) -> Mesh:
    """Mesh the whole head at rest.

    Args:
        rng: source of the starting places of the free vertices.

    Returns:
        the mesh, with FLAME's numbers of vertices and faces.

    Raises:
        RuntimeError: the mesh is not a manifold of the expected size (a defect of this module).
    """
    half = HalfMesh()
    places, points, area = candidates()
    keep = ~in_hole(base_points(places[:, 0], places[:, 1]))
    places, points, area = places[keep], points[keep], area[keep]
    rows = _fixed_rows(half)
    num_skin = NUM_VERTICES - NUM_EYEBALLS
    wanted = area / (0.866 * edge_length(points) ** 2)
    factor = float(np.sqrt(wanted.sum() / _NUM_FREE_EXPECTED))
    latitude = {
        k: np.concatenate(half.domain)[rows[k][0], 1] for k in ("around_upper", "around_lower")
    }
    given = np.concatenate(
        [rows["mouth_end"], rows["neck_ring"][[0, -1]]]
        + [rows[k][[0]] for k in rows if k.startswith(("lip_", "around_"))]
        + [rows[k][[0, -1]] for k in rows if k.startswith("mouth_") and k != "mouth_end"]
    )
    top, down = midline(factor, latitude["around_upper"], latitude["around_lower"], len(given))
    middle = np.concatenate(
        [given, half.add("middle_top", skin(top), top), half.add("middle_down", skin(down), down)]
    )
    num_middle = len(middle)
    num_free = (num_skin - num_middle) // 2 - (half.count - num_middle)
    known = np.concatenate(half.points)[~np.isnan(np.concatenate(half.domain)[:, 0])]
    free = relax(known, num_free, (places, points, area), rng)
    half.add("free", skin(free), free)
    faces = _connect(half, rows, middle)
    return _whole(half, faces, middle)


def _fixed_rows(half: HalfMesh) -> dict[str, IntArray]:
    """Add all vertices whose place is given: lids, lips, mouth, ear, lower edge of the neck."""
    rows: dict[str, IntArray] = {}
    margin = parts.eyelid_margin_xy()
    base = front_points(margin[:, 0], margin[:, 1])
    rows["eye_margin"] = half.add("eye_margin", sculpt(base), np.column_stack(domain_of(base)))
    rim_domain = front_domain(eye_opening(parts.eye_angles()))
    for name, ring in parts.eyelid_rings().items():
        rows[name] = half.add(name, ring, rim_domain if name == "eye_rim" else None)
    rows["eye_end"] = half.add("eye_end", parts.socket_centre()[None])
    for name, xy in {"eye_fold": parts.eyelid_margin_xy(3.9), **parts.brow_rows()}.items():
        base = front_points(xy[:, 0], xy[:, 1])
        rows[name] = half.add(name, sculpt(base), np.column_stack(domain_of(base)))
    for upper, side in ((True, "upper"), (False, "lower")):
        lip = {
            f"lip_{side}_middle": (parts.lip_xy(upper, 0.5), 1.0),
            f"lip_{side}_edge": (parts.lip_xy(upper, 1.0), 0.75),
            f"around_{side}": (parts.lip_surround_xy(upper), 0.4),
        }
        for name, (xy, fraction) in lip.items():
            # the sheet is meshed with the mouth ajar
            offset = np.zeros(len(xy))
            offset[: parts.NUM_LIP] = fraction * _ajar()[:-1]
            shown = xy + np.column_stack([0.0 * offset, offset if upper else -offset])
            rows[name] = half.add(
                name, sculpt(front_points(xy[:, 0], xy[:, 1])), front_domain(shown)
            )
    for name, ring in parts.mouth_rings().items():
        domain = None
        if name == "mouth_line":
            offset = np.concatenate([_ajar(), -_ajar()[-2::-1]])
            xy = np.column_stack([ring[:, 0], mouth_line(ring[:, 0]) + offset])
            domain = front_domain(xy)
        rows[name] = half.add(name, ring, domain)
    throat = np.concatenate([half.points[-1][[0]], half.points[-1][[-1]]]).mean(axis=0)
    rows["mouth_end"] = half.add("mouth_end", np.array([[0.0, throat[1], throat[2] - 6.0]]))
    for k, ring in enumerate(parts.ear_rings()):
        domain = np.column_stack(domain_of(ring)) if k == 0 else None
        rows[f"ear_{k}"] = half.add(f"ear_{k}", ring, domain)
    rows["ear_end"] = half.add("ear_end", parts.ear_canal()[None])
    lon = np.linspace(0.0, np.pi, NUM_NECK_RING // 2 + 1)
    edge = np.column_stack([lon, np.full(len(lon), LATITUDE_END)])
    rows["neck_ring"] = half.add("neck_ring", skin(edge), edge)
    return rows


def _ajar() -> FloatArray:
    """Return the opening of the lips' columns, corner last, while the sheet is meshed, mm."""
    t = np.arange(parts.NUM_LIP + 1) / parts.NUM_LIP
    return 1.6 * np.sqrt(1.0 - t**2)


def _connect(half: HalfMesh, rows: dict[str, IntArray], middle: IntArray) -> IntArray:
    """Return triangles of the half: the skin sheet and the strips of the explicit parts."""
    holes = [
        (rows["eye_rim"], True),
        (rows["mouth_line"], False),
        (rows["ear_0"], True),
        (rows["neck_ring"], False),
    ]
    sheet = _sheet(half, holes, middle)
    directed = {(int(f[i]), int(f[(i + 1) % 3])) for f in sheet for i in range(3)}
    faces = [sheet]

    def glue(chain: list[IntArray], end: int, closed: bool) -> None:
        # the strips must run against the border of the sheet
        if (int(chain[0][1]), int(chain[0][0])) in directed:
            chain = [ring[::-1] for ring in chain]
        for a, b in pairwise(chain):
            faces.append(np.array(strip(a, b, closed), dtype=np.int64))
        last = chain[-1]
        pairs = zip(last, np.roll(last, -1), strict=True) if closed else pairwise(last)
        faces.append(np.array([(q, p, end) for p, q in pairs], dtype=np.int64))

    glue([rows["eye_rim"], rows["eye_inner"], rows["eye_hidden"]], int(rows["eye_end"][0]), True)
    mouth = ["line", "inner", "gum", "teeth", "palate", "throat"]
    glue([rows[f"mouth_{m}"] for m in mouth], int(rows["mouth_end"][0]), False)
    num_rings = sum(k.startswith("ear_") for k in rows) - 1
    glue([rows[f"ear_{k}"] for k in range(num_rings)], int(rows["ear_end"][0]), True)
    return np.concatenate(faces)


def _whole(half: HalfMesh, faces: IntArray, middle: IntArray) -> Mesh:
    """Reflect the half mesh; order: midline, left, right, left eyeball, right eyeball."""
    points = np.concatenate(half.points)
    middle = np.unique(middle)
    left = np.setdiff1d(np.arange(half.count), middle)
    new = np.full(half.count, -1)
    new[middle] = np.arange(len(middle))
    new[left] = len(middle) + np.arange(len(left))
    num_skin = len(middle) + 2 * len(left)
    ball, angle, ball_faces = parts.eyeball()
    flip = np.array([-1.0, 1.0, 1.0])
    on_middle = points[middle] * [0.0, 1.0, 1.0]
    vertices = np.concatenate([on_middle, points[left], points[left] * flip, ball, ball * flip])
    n, m = len(left), len(middle)
    mirror = np.concatenate(
        [
            np.arange(m),
            np.arange(n) + m + n,
            np.arange(n) + m,
            np.arange(len(ball)) + num_skin + len(ball),
            np.arange(len(ball)) + num_skin,
        ]
    )
    skin = new[faces]
    balls = ball_faces + num_skin
    every = np.concatenate([skin, mirror[skin][:, ::-1], balls, mirror[balls][:, ::-1]])
    names = {k: np.unique(np.concatenate([new[v], mirror[new[v]]])) for k, v in half.names.items()}
    names["eyeball_left"] = num_skin + np.arange(len(ball))
    names["eyeball_right"] = num_skin + len(ball) + np.arange(len(ball))
    rows = {k: new[v] for k, v in half.names.items()}
    soft = np.concatenate(
        [names[k] for k in ("free", "middle_top", "middle_down", "eye_fold", "eye_margin")]
    )
    vertices = smooth(vertices, every, soft)
    vertices = 0.5 * (vertices + vertices[mirror] * flip)
    _check(vertices, every, mirror)
    return Mesh(vertices, every, mirror, names, rows, angle)


def _sheet(mesh: HalfMesh, holes: list[tuple[IntArray, bool]], on_midline: IntArray) -> IntArray:
    """Triangulate the skin sheet: Delaunay on the sphere, then holes cut out."""
    points, domain = np.concatenate(mesh.points), np.concatenate(mesh.domain)
    used = np.flatnonzero(~np.isnan(domain[:, 0]))
    d = direction(domain[used])
    d[np.isin(used, on_midline), 0] = 0.0
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    plane = d[:, 1:] / (1.0 + d[:, :1])
    faces = used[Delaunay(plane).simplices]
    flat = np.full((mesh.count, 2), np.nan)
    flat[used] = plane
    a, b, c = (flat[faces[:, k]] for k in range(3))
    area = turn(a, b, c)
    # plane axes are (y, z) seen from +x: y to z is anticlockwise from outside
    faces = np.where((area < 0)[:, None], faces[:, ::-1], faces)[np.abs(area) > 1e-14]
    for ring, closed in holes:
        faces = recover_edges(
            flat, faces, list(zip(ring, np.roll(ring, -1), strict=True))[: None if closed else -1]
        )
        faces = faces[~np.isin(faces, ring).all(axis=1)]
    return improve(points, faces, frozenset(on_midline.tolist()))


def _check(vertices: FloatArray, faces: IntArray, mirror: IntArray) -> None:
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    code = directed[:, 0] * len(vertices) + directed[:, 1]
    if len(np.unique(code)) != len(code):
        raise RuntimeError("procedural head: an edge is used twice in the same direction")
    if len(np.unique(faces)) != len(vertices):
        raise RuntimeError("procedural head: a vertex belongs to no face")
    if (len(vertices), len(faces)) != (NUM_VERTICES, NUM_FACES):
        raise RuntimeError(
            f"procedural head: expected {NUM_VERTICES} vertices and {NUM_FACES} faces, "
            f"got {len(vertices)} and {len(faces)}"
        )
    if not np.array_equal(vertices[mirror] * [-1.0, 1.0, 1.0], vertices):
        raise RuntimeError("procedural head: the mesh is not mirror-symmetric")
