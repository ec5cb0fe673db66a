"""Vertices and triangles of the procedural head: one half is meshed, the other is its mirror image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, cKDTree

from ml.flame.procedural import parts
from ml.flame.procedural.surface import (
    LATITUDE_END,
    MOUTH_Y,
    FloatArray,
    base_points,
    domain_of,
    eye_opening,
    front_points,
    lower_border,
    mouth_line,
    sculpt,
    smooth_step,
    upper_border,
)

IntArray = NDArray[np.int64]
NUM_VERTICES = 5023
NUM_FACES = 9976
NUM_EYEBALLS = 1090
NUM_NECK_RING = 60
"""A closed skin with one hole of 60 edges has exactly FLAME's number of faces (Euler)."""
_NUM_CANDIDATES = 36000
_LLOYD_STEPS = 28


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


def _direction(domain: FloatArray) -> FloatArray:
    lon, lat = domain.T
    return np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], axis=1)


def _skin(domain: FloatArray) -> FloatArray:
    return sculpt(base_points(domain[:, 0], domain[:, 1]))


def _front_domain(xy: FloatArray) -> FloatArray:
    return np.column_stack(domain_of(front_points(xy[:, 0], xy[:, 1])))


def edge_length(points: FloatArray) -> FloatArray:
    """Wanted length of the edges at points of the skin, mm, up to a common factor."""
    x, y, z = points.T
    x = np.abs(x)
    h = np.full(len(points), 5.2)
    h = h + 4.5 * smooth_step(y, 48.0, 95.0)
    h = h + 5.5 * smooth_step(z, 12.0, -45.0)
    h = h + 1.5 * smooth_step(y, -105.0, -135.0)

    def dense(centre: tuple[float, float], radii: tuple[float, float], value: float) -> None:
        nonlocal h
        q = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
        weight = smooth_step(q, 1.9, 0.9) * (z > 5.0)
        h = h + (np.minimum(value, h) - h) * weight

    dense((31.0, 20.0), (20.0, 14.0), 2.3)
    dense((0.0, -16.0), (19.0, 14.0), 2.1)
    dense((13.0, -20.0), (8.0, 8.0), 1.8)
    dense((0.0, 4.0), (11.0, 18.0), 3.0)
    dense((0.0, MOUTH_Y), (27.0, 14.0), 2.7)
    dense((31.0, 37.0), (21.0, 6.5), 2.2)
    ear = np.hypot(y + 3.0, z + 45.0)
    return np.where(x > 40.0, h + (np.minimum(5.5, h) - h) * smooth_step(ear, 55.0, 30.0), h)


def _holes(points: FloatArray) -> NDArray[np.bool_]:
    """Places of the base surface that belong to eye opening, lips or ear foot."""
    x, y, z = points.T
    margin = parts.eyelid_margin_xy()
    eye = _inside(np.column_stack([x, y]), margin) & (z > 0)
    lips = (x < 25.5) & (y < upper_border(x) + 1.3) & (y > lower_border(x) - 1.3) & (z > 20.0)
    foot = parts.ear_rings()[0][:, 1:]
    return eye | lips | (_inside(np.column_stack([y, z]), foot) & (x > 20.0))


def _inside(points: FloatArray, polygon: FloatArray) -> NDArray[np.bool_]:
    """Even-odd test of (N, 2) points in a closed polygon."""
    inside = np.zeros(len(points), dtype=bool)
    a = polygon
    b = np.roll(polygon, -1, axis=0)
    for (ax, ay), (bx, by) in zip(a, b, strict=True):
        if ay == by:
            continue
        crosses = (points[:, 1] < ay) != (points[:, 1] < by)
        inside ^= crosses & (points[:, 0] < ax + (points[:, 1] - ay) * (bx - ax) / (by - ay))
    return inside


def _candidates() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Domain places spread over the half skin, their points and the skin area of each, mm^2."""
    n = 2 * _NUM_CANDIDATES
    i = np.arange(n) + 0.5
    low = np.sin(LATITUDE_END)
    lat = np.arcsin(low + (1.0 - low) * i / n)
    lon = (i * np.pi * (1.0 + 5.0**0.5)) % (2.0 * np.pi)
    keep = lon < np.pi
    domain = np.column_stack([lon[keep], lat[keep]])
    step = 1e-3
    points = _skin(domain)
    along_lat = (_skin(domain + [0.0, step]) - points) / step
    along_lon = (_skin(domain + [step, 0.0]) - points) / step
    area = np.linalg.norm(np.cross(along_lat, along_lon), axis=1) / np.maximum(
        np.cos(domain[:, 1]), 1e-3
    )
    return domain, points, area * (2.0 * np.pi * (1.0 - low) / n)


def _relax(
    fixed: FloatArray, num_free: int, candidates: tuple[FloatArray, FloatArray, FloatArray],
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Spread free sites over the skin (Lloyd's iteration with the density of :func:`edge_length`)."""
    domain, points, area = candidates
    length = edge_length(points)
    direction = _direction(domain)
    weight = area * length**-4
    chance = area * length**-2
    site = domain[rng.choice(len(domain), num_free, replace=False, p=chance / chance.sum())]
    for _ in range(_LLOYD_STEPS):
        position = _skin(site)
        owner = cKDTree(np.concatenate([position, fixed])).query(points)[1]
        mine = owner < num_free
        total = np.bincount(owner[mine], weight[mine], minlength=num_free)
        mean = np.stack(
            [
                np.bincount(owner[mine], weight[mine] * direction[mine, k], minlength=num_free)
                for k in range(3)
            ],
            1,
        )
        ok = total > 0
        mean[ok] /= np.linalg.norm(mean[ok], axis=1, keepdims=True)
        moved = np.column_stack(
            [np.arctan2(mean[:, 0], mean[:, 2]), np.arcsin(np.clip(mean[:, 1], -1, 1))]
        )
        # a site without places restarts where the density is badly served
        moved[~ok] = domain[
            rng.choice(len(domain), int((~ok).sum()), replace=False, p=weight / weight.sum())
        ]
        site = moved
    return site


def _spaced(run: FloatArray, domain: FloatArray, factor: float, parity: int | None) -> FloatArray:
    """Interior places (M, 2) of a fine path of the domain at the wanted spacing.

    Args:
        run: (N,) increasing parameter of the path.
        domain: (N, 2) its places.
        factor: common factor of the edge lengths.
        parity: wanted remainder of M by 2, or None.
    """
    points = _skin(domain)
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    length = 0.5 * (edge_length(points[1:]) + edge_length(points[:-1])) * factor
    arc = np.concatenate([[0.0], np.cumsum(step / length)])
    count = int(round(arc[-1]))
    if parity is not None and (count - 1) % 2 != parity:
        count += 1
    return np.interp(np.arange(1, count) * arc[-1] / count, arc, run)


def _midline(
    factor: float, above: float, below: float, num_others: int
) -> tuple[FloatArray, FloatArray]:
    """Places on the midline over the head and under the mouth.

    Args:
        factor: common factor of the edge lengths.
        above: latitude of the first vertex above the mouth, rad.
        below: latitude of the first vertex under the mouth, rad.
        num_others: vertices on the midline from elsewhere; together they must be odd in number, as
            the skin's vertices are.
    """
    run = np.linspace(below, LATITUDE_END, 1500)[::-1]
    path = np.column_stack([np.zeros(len(run)), run])
    at = _spaced(run, path, factor, None)
    down = np.column_stack([np.zeros(len(at)), at])
    # latitude runs on over the crown: beyond pi/2 it is the back of the head
    run = np.linspace(above, np.pi - LATITUDE_END, 4000)
    at = _spaced(run, _over(run), factor, (1 + num_others + len(down)) % 2)
    return _over(at), down


def _over(run: FloatArray) -> FloatArray:
    behind = run > np.pi / 2
    return np.column_stack([np.where(behind, np.pi, 0.0), np.where(behind, np.pi - run, run)])


def _strip(a: IntArray, b: IntArray, closed: bool) -> list[tuple[int, int, int]]:
    """Triangles between two rows of the same length; row b lies on the right of row a's direction."""
    n = len(a)
    out = []
    for i in range(n if closed else n - 1):
        j = (i + 1) % n
        out.append((a[i], b[i], a[j]))
        out.append((a[j], b[i], b[j]))
    return out


def _orient(faces: IntArray, points: FloatArray, domain: FloatArray) -> IntArray:
    p = points[faces]
    normal = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    d = _direction(domain)[faces].mean(axis=1)
    wrong = np.einsum("ij,ij->i", normal, d) < 0
    # the virtual direction under the chin is not the ray: the plane orientation decides there
    return np.where(wrong[:, None], faces[:, ::-1], faces)


def _sheet(mesh: HalfMesh, holes: list[tuple[IntArray, bool]], on_midline: IntArray) -> IntArray:
    """Triangulate the skin sheet: Delaunay on the sphere, then holes cut out."""
    points, domain = np.concatenate(mesh.points), np.concatenate(mesh.domain)
    used = np.flatnonzero(~np.isnan(domain[:, 0]))
    d = _direction(domain[used])
    d[np.isin(used, on_midline), 0] = 0.0
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    plane = d[:, 1:] / (1.0 + d[:, :1])
    faces = used[Delaunay(plane).simplices]
    flat = np.full((mesh.count, 2), np.nan)
    flat[used] = plane
    a, b, c = (flat[faces[:, k]] for k in range(3))
    turn = _turn(a, b, c)
    # plane axes are (y, z) seen from +x: y to z is anticlockwise from outside
    faces = np.where((turn < 0)[:, None], faces[:, ::-1], faces)[np.abs(turn) > 1e-14]
    for ring, closed in holes:
        faces = _recover(
            flat, faces, list(zip(ring, np.roll(ring, -1), strict=True))[: None if closed else -1]
        )
        faces = faces[~np.isin(faces, ring).all(axis=1)]
    return improve(points, faces, frozenset(on_midline.tolist()))


def _turn(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Twice the signed area of plane triangles (..., 2)."""
    u, v = b - a, c - a
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _recover(flat: FloatArray, faces: IntArray, wanted: list[tuple[int, int]]) -> IntArray:
    """Flip edges of a plane triangulation until it has the wanted ones.

    Args:
        flat: (N, 2) places of the vertices.
        faces: (F, 3) anticlockwise triangles.
        wanted: vertex pairs that do not cross each other.

    Returns:
        (F, 3) triangles.
    """
    faces = faces.copy()
    for start, end in wanted:
        for _ in range(20):
            has = (faces == start).any(axis=1) & (faces == end).any(axis=1)
            if has.any() or not _flip_crossing(flat, faces, int(start), int(end)):
                break
    return faces


def _flip_crossing(flat: FloatArray, faces: IntArray, start: int, end: int) -> bool:
    """Flip one edge that crosses the segment from start to end, in place; False if none can be."""
    near = np.flatnonzero(np.linalg.norm(flat[faces].mean(axis=1) - flat[start], axis=1) < 0.3)
    p, q = flat[start], flat[end]
    owner = {(int(faces[k][i]), int(faces[k][(i + 1) % 3])): int(k) for k in near for i in range(3)}
    for (a, b), left in sorted(owner.items()):
        if a > b or (b, a) not in owner or {a, b} & {start, end}:
            continue
        crosses = (
            _turn(p, q, flat[a]) * _turn(p, q, flat[b]) < 0
            and _turn(flat[a], flat[b], p) * _turn(flat[a], flat[b], q) < 0
        )
        if not crosses:
            continue
        right = owner[b, a]
        c = int(next(v for v in faces[left] if v not in (a, b)))
        d = int(next(v for v in faces[right] if v not in (a, b)))
        if _turn(flat[c], flat[d], flat[b]) > 0 and _turn(flat[d], flat[c], flat[a]) > 0:
            faces[left], faces[right] = (c, d, b), (d, c, a)
            return True
    return False


def improve(
    points: FloatArray, faces: IntArray, on_midline: frozenset[int], rounds: int = 12
) -> IntArray:
    """Flip edges until opposite angles sum to less than pi where the surface is not sharply bent.

    Args:
        points: (N, 3) mm.
        faces: (F, 3) oriented triangles.
        on_midline: vertices that no edge may join across a third one: it would lie in the mirror.
        rounds: most sweeps over all edges.

    Returns:
        (F, 3) triangles over the same points with the same border.
    """
    tri = [list(map(int, f)) for f in faces]
    edge: dict[tuple[int, int], int] = {}
    for k, f in enumerate(tri):
        for i in range(3):
            edge[f[i], f[(i + 1) % 3]] = k

    def normal(a: int, b: int, c: int) -> FloatArray:
        n = np.cross(points[b] - points[a], points[c] - points[a])
        return n / (np.linalg.norm(n) + 1e-12)

    def angle(at: int, p: int, q: int) -> float:
        u, v = points[p] - points[at], points[q] - points[at]
        return float(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))

    pending = sorted(e for e in edge if e[0] < e[1])
    for _ in range(rounds):
        changed: set[tuple[int, int]] = set()
        for a, b in pending:
            if (a, b) not in edge or (b, a) not in edge:
                continue
            left, right = edge[a, b], edge[b, a]
            c = next(v for v in tri[left] if v not in (a, b))
            d = next(v for v in tri[right] if v not in (a, b))
            if (c, d) in edge or (d, c) in edge or (c in on_midline and d in on_midline):
                continue
            if angle(c, a, b) + angle(d, a, b) <= np.pi + 1e-6:
                continue
            mean = normal(a, b, c) + normal(b, a, d)
            if min(normal(c, d, b) @ mean, normal(d, c, a) @ mean) < 0.6:
                continue
            for old in ((a, b), (b, c), (c, a), (b, a), (a, d), (d, b)):
                del edge[old]
            tri[left], tri[right] = [c, d, b], [d, c, a]
            for k in (left, right):
                f = tri[k]
                for i in range(3):
                    edge[f[i], f[(i + 1) % 3]] = k
            changed |= {(min(p, q), max(p, q)) for p, q in ((a, d), (d, b), (b, c), (c, a))}
        if not changed:
            break
        pending = sorted(changed)
    return np.array(tri, dtype=np.int64)


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
    candidates = _candidates()
    keep = ~_holes(base_points(candidates[0][:, 0], candidates[0][:, 1]))
    candidates = (candidates[0][keep], candidates[1][keep], candidates[2][keep])
    rows = _fixed_rows(half)
    num_skin = NUM_VERTICES - NUM_EYEBALLS
    wanted = candidates[2] / (0.866 * edge_length(candidates[1]) ** 2)
    factor = float(np.sqrt(wanted.sum() / 1150.0))
    latitude = {
        k: np.concatenate(half.domain)[rows[k][0], 1] for k in ("around_upper", "around_lower")
    }
    given = np.concatenate(
        [rows["mouth_end"], rows["neck_ring"][[0, -1]]]
        + [rows[k][[0]] for k in rows if k.startswith(("lip_", "around_"))]
        + [rows[k][[0, -1]] for k in rows if k.startswith("mouth_") and k != "mouth_end"]
    )
    top, down = _midline(factor, latitude["around_upper"], latitude["around_lower"], len(given))
    middle = np.concatenate(
        [given, half.add("middle_top", _skin(top), top), half.add("middle_down", _skin(down), down)]
    )
    num_middle = len(middle)
    num_free = (num_skin - num_middle) // 2 - (half.count - num_middle)
    known = np.concatenate(half.points)[~np.isnan(np.concatenate(half.domain)[:, 0])]
    free = _relax(known, num_free, candidates, rng)
    half.add("free", _skin(free), free)
    faces = _connect(half, rows, middle)
    return _whole(half, faces, middle)


def _fixed_rows(half: HalfMesh) -> dict[str, IntArray]:
    """Add all vertices whose place is given: lids, lips, mouth, ear, lower edge of the neck."""
    rows: dict[str, IntArray] = {}
    margin = parts.eyelid_margin_xy()
    base = front_points(margin[:, 0], margin[:, 1])
    rows["eye_margin"] = half.add("eye_margin", sculpt(base), np.column_stack(domain_of(base)))
    rim_domain = _front_domain(eye_opening(parts.eye_angles()))
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
        for name, (xy, share) in lip.items():
            # the sheet is meshed with the mouth ajar
            offset = np.zeros(len(xy))
            offset[: parts.NUM_LIP] = share * _ajar()[:-1]
            shown = xy + np.column_stack([0.0 * offset, offset if upper else -offset])
            rows[name] = half.add(
                name, sculpt(front_points(xy[:, 0], xy[:, 1])), _front_domain(shown)
            )
    for name, ring in parts.mouth_rings().items():
        domain = None
        if name == "mouth_line":
            offset = np.concatenate([_ajar(), -_ajar()[-2::-1]])
            xy = np.column_stack([ring[:, 0], mouth_line(ring[:, 0]) + offset])
            domain = _front_domain(xy)
        rows[name] = half.add(name, ring, domain)
    throat = np.concatenate([half.points[-1][[0]], half.points[-1][[-1]]]).mean(axis=0)
    rows["mouth_end"] = half.add("mouth_end", (throat + [0.0, 0.0, -6.0])[None] * [0.0, 1.0, 1.0])
    for k, ring in enumerate(parts.ear_rings()):
        domain = np.column_stack(domain_of(ring)) if k == 0 else None
        rows[f"ear_{k}"] = half.add(f"ear_{k}", ring, domain)
    rows["ear_end"] = half.add("ear_end", parts.ear_canal()[None])
    lon = np.linspace(0.0, np.pi, NUM_NECK_RING // 2 + 1)
    edge = np.column_stack([lon, np.full(len(lon), LATITUDE_END)])
    rows["neck_ring"] = half.add("neck_ring", _skin(edge), edge)
    return rows


def _ajar() -> FloatArray:
    """Opening of each column of the lips, the corner last, while the sheet is meshed, mm."""
    t = np.arange(parts.NUM_LIP + 1) / parts.NUM_LIP
    return 1.6 * np.sqrt(1.0 - t**2)


def _connect(half: HalfMesh, rows: dict[str, IntArray], middle: IntArray) -> IntArray:
    """Triangles of the half: the skin sheet and the strips of the explicit parts."""
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
        for a, b in zip(chain[:-1], chain[1:], strict=True):
            faces.append(np.array(_strip(a, b, closed), dtype=np.int64))
        last = chain[-1]
        pairs = (
            zip(last, np.roll(last, -1), strict=True)
            if closed
            else zip(last[:-1], last[1:], strict=True)
        )
        faces.append(np.array([(q, p, end) for p, q in pairs], dtype=np.int64))

    glue([rows["eye_rim"], rows["eye_inner"], rows["eye_hidden"]], int(rows["eye_end"][0]), True)
    mouth = ["line", "inner", "gum", "teeth", "palate", "throat"]
    glue([rows[f"mouth_{m}"] for m in mouth], int(rows["mouth_end"][0]), False)
    num_rings = sum(k.startswith("ear_") for k in rows) - 1
    glue([rows[f"ear_{k}"] for k in range(num_rings)], int(rows["ear_end"][0]), True)
    return np.concatenate(faces)


def _whole(half: HalfMesh, faces: IntArray, middle: IntArray) -> Mesh:
    """Reflect the half mesh and add the eyeballs: midline, left, right, left eyeball, right eyeball."""
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
    vertices = _smooth(vertices, every, soft)
    vertices = 0.5 * (vertices + vertices[mirror] * flip)
    _check(vertices, every, mirror)
    return Mesh(vertices, every, mirror, names, rows, angle)


def _smooth(vertices: FloatArray, faces: IntArray, soft: IntArray, rounds: int = 3) -> FloatArray:
    """Even out creases between vertices of the skin without shrinking it (Taubin's filter)."""
    n = len(vertices)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    degree = np.bincount(edges[:, 0], minlength=n)
    free = np.zeros(n)
    free[soft] = 1.0
    out = vertices
    for factor in (0.55, -0.58) * rounds:
        mean = np.stack(
            [np.bincount(edges[:, 0], out[edges[:, 1], k], minlength=n) for k in range(3)], 1
        )
        out = out + (factor * free)[:, None] * (mean / np.maximum(degree, 1)[:, None] - out)
    return out


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
