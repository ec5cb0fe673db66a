"""The head's 5,023 vertices and 9,976 triangles, as a linear operator on MakeHuman's base mesh.

Every vertex is a fixed weighted sum of vertices of the base mesh, so whatever moves that (targets,
joints, rig weights) moves the head. The left half is built and reflected.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix, vstack

from ml.flame.head_model import NUM_FACES, NUM_VERTICES
from ml.flame.open_head.source import BaseMesh, FloatArray, IntArray

_NECK_START = 1491
"""Vertex of the base mesh at the nape where the edge loop starts that ends the neck."""
_NECK_SPLITS = 3
"""Edges split on each half of the neck's rim: closed parts (skin with a rim of B, two eyeballs, two
rows of teeth, tongue) have 2 V - 18 - B - 4 triangles; 9,976 of 5,023 vertices ask for B = 48."""
NUM_RINGS = 15
NUM_COLUMNS = 24
PUPIL_DEG = 10.0
IRIS_DEG = 27.0
_RING_DEG = (5.0, 9.6, 10.4, 18.0, 26.4, 27.6, 34.0)
_RECESSION = 0.6
"""How far the outer edges of the gums are drawn back towards the inner ones: MakeHuman's are so
close to the skin that they come through the chins of some people."""
_HIDDEN = 0.12
"""Cost of an edge inside the mouth or a socket, relative to one on the skin."""


@dataclass(frozen=True)
class HeadMesh:
    """The head's mesh.

    Attributes:
        operator: (5023, 19158) sparse; times the base mesh's vertices it is the head's.
        faces: (9976, 3) anticlockwise from outside.
        mirror: (5023,) the vertex on the other side.
        parts: name -> sorted indices: `skin`, `upper_teeth`, `lower_teeth`, `tongue`,
            `left_eyeball`, `right_eyeball`.
        eye_angle: (N,) angle from the optical axis of a ball's vertices, rad.
        rim: indices of the neck's lower rim.
    """

    operator: csr_matrix
    faces: IntArray
    mirror: IntArray
    parts: dict[str, IntArray]
    eye_angle: FloatArray
    rim: IntArray

    def apply(self, values: FloatArray) -> FloatArray:
        """Take values (..., 19158, K) of the base mesh to the head, (..., 5023, K)."""
        flat = values.reshape(-1, *values.shape[-2:])
        out = np.stack([self.operator @ one for one in flat])
        return out.reshape(*values.shape[:-2], *out.shape[-2:])


def build_mesh(base: BaseMesh, hidden: FloatArray) -> HeadMesh:
    """Build the mesh.

    Args:
        base: MakeHuman's base mesh.
        hidden: (19158,) 1 where the skin is never seen: mouth, sockets.

    Returns:
        The mesh.
    """
    rim = neck_loop(base)
    skin = half_triangles(base, quads_above(base, rim))
    teeth: dict[str, IntArray] = {}
    behind: dict[int, int] = {}
    for name in ("upper_teeth", "lower_teeth"):
        quads, gum = _closed_teeth(base, f"helper-{name.replace('_', '-')}")
        teeth[name] = half_triangles(base, quads)
        behind |= gum
    tongue = half_triangles(base, base.quads[base.groups == "helper-tongue"])
    others = {**teeth, "tongue": tongue}
    fixed = sum(_full_count(base, faces) for faces in others.values())
    ball, ball_faces, angle = _eyeball(base)
    wanted = NUM_VERTICES - 2 * ball.shape[0] - fixed - 2 * _NECK_SPLITS
    # pairs are removed; where the count is odd, the midline gets one vertex more
    surplus = _full_count(base, skin) - wanted
    odd = surplus % 2
    cost = np.where(hidden > 0.5, _HIDDEN, 1.0)
    skin = collapse(base, skin, rim, cost, (surplus + odd) // 2)
    splits = _longest(base, _left_part(base, rim), _NECK_SPLITS)
    splits += _longest(base, _midline_edges(base, skin), odd)
    half = np.concatenate([skin, *others.values()])
    used = np.unique(half)
    share = np.array([_RECESSION if int(v) in behind else 0.0 for v in used])
    inner = np.array([behind.get(int(v), int(v)) for v in used])
    own = csr_matrix((1.0 - share, (range(len(used)), used)), (len(used), ball.shape[1]))
    rows = [own + csr_matrix((share, (range(len(used)), inner)), own.shape)]
    number = np.full(len(base.vertices), -1)
    number[used] = np.arange(len(used))
    faces, extra = _split(base, number, number[half], splits)
    rows.append(extra)
    return _reflect(base, rows, faces, number, others, ball, ball_faces, angle, rim)


# ------------------------------------------------------------------ what is taken
def neck_loop(base: BaseMesh) -> IntArray:
    """Return the closed edge loop around the neck: start at the nape, over the left side."""
    body = base.quads[base.groups == "body"]
    faces_of: dict[frozenset[int], list[int]] = {}
    near: dict[int, set[int]] = {}
    for q, corners in enumerate(body.tolist()):
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            faces_of.setdefault(frozenset((a, b)), []).append(q)
            near.setdefault(a, set()).add(b)
            near.setdefault(b, set()).add(a)
    start = _NECK_START
    loop = [start, next(v for v in sorted(near[start]) if base.vertices[v, 0] > 1e-4)]
    while True:
        before, here = loop[-2:]
        last = set(faces_of[frozenset((before, here))])
        (following,) = [
            v for v in near[here] if v != before and not last & set(faces_of[frozenset((here, v))])
        ]
        if following == start:
            return np.array(loop)
        loop.append(following)


def quads_above(base: BaseMesh, rim: IntArray) -> IntArray:
    """Return the skin's quads above the rim of the neck."""
    body = base.quads[base.groups == "body"]
    barrier = {
        frozenset(pair) for pair in zip(rim.tolist(), np.roll(rim, -1).tolist(), strict=True)
    }
    faces_of: dict[frozenset[int], list[int]] = {}
    for q, corners in enumerate(body.tolist()):
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            faces_of.setdefault(frozenset((a, b)), []).append(q)
    top = int(np.argmax(base.vertices[body].mean(axis=1)[:, 1]))
    seen, queue = {top}, deque([top])
    while queue:
        corners = body[queue.popleft()].tolist()
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            edge = frozenset((a, b))
            for other in faces_of[edge] if edge not in barrier else ():
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
    return body[sorted(seen)]


def _closed_teeth(base: BaseMesh, group: str) -> tuple[IntArray, dict[int, int]]:
    """Close a row of teeth, an open strip four vertices wide: behind, and at both ends.

    Returns:
        the quads, and for each vertex of the outer edge of the gum the one behind it.
    """
    quads = base.quads[base.groups == group]
    directed = {(a, b) for c in quads.tolist() for a, b in zip(c, c[1:] + c[:1], strict=True)}
    border = {b: a for a, b in directed if (b, a) not in directed}  # runs against the strip
    loop = [min(border)]
    while border[loop[-1]] != loop[0]:
        loop.append(border[loop[-1]])
    # the strip's ends are four vertices long: rotate the loop until it starts at a corner
    valence = {v: int((quads == v).sum()) for v in loop}
    corner = next(
        k for k in range(len(loop)) if valence[loop[k]] == 1 and valence[loop[(k + 3) % 38]] == 1
    )
    loop = loop[corner:] + loop[:corner]
    one, other = loop[3:20], [loop[0], *loop[:21:-1]]
    back = np.stack([one[:-1], one[1:], other[1:], other[:-1]], axis=1)
    if base.vertices[one[8], 2] < base.vertices[other[8], 2]:
        one, other = other, one
    closed = np.concatenate([quads, back, [loop[:4], loop[19:23]]])
    return closed, dict(zip(one, other, strict=True))


def half_triangles(base: BaseMesh, quads: IntArray) -> IntArray:
    """Return triangles of the left half, quads cut along the shorter diagonal."""
    left = base.vertices[quads].mean(axis=1)[:, 0]
    across = np.abs(left) <= 1e-9
    half = quads[(left > 1e-9)]
    p = base.vertices[half]
    first = np.linalg.norm(p[:, 0] - p[:, 2], axis=1) <= np.linalg.norm(p[:, 1] - p[:, 3], axis=1)
    order = np.where(first[:, None], [0, 1, 2, 0, 2, 3], [0, 1, 3, 1, 2, 3])
    if across.any():
        raise RuntimeError("open head: a quad lies across the midline")
    return np.take_along_axis(half, order, axis=1).reshape(-1, 3)


def _full_count(base: BaseMesh, half: IntArray) -> int:
    used = np.unique(half)
    return int(len(used) + (base.mirror[used] != used).sum())


# ------------------------------------------------------------------ to the count
def collapse(
    base: BaseMesh, faces: IntArray, rim: IntArray, detail: FloatArray, count: int
) -> IntArray:
    """Remove vertices of the left half by collapsing short edges onto a neighbour.

    Vertices on the midline and on the rim stay, so that the halves fit.

    Args:
        base: the base mesh.
        faces: (F, 3) triangles of the left half.
        rim: vertices of the border.
        detail: (19158,) factors of the lengths of a vertex's edges; the least product goes first.
        count: how many vertices to remove.

    Returns:
        (G, 3) the triangles that remain.
    """
    points = base.vertices
    triangles = {k: tuple(map(int, f)) for k, f in enumerate(faces)}
    around: dict[int, set[int]] = {}
    for k, f in triangles.items():
        for v in f:
            around.setdefault(v, set()).add(k)
    fixed = {v for v in around if base.mirror[v] == v} | {int(v) for v in rim}

    def ring(v: int) -> set[int]:
        return {w for k in around[v] for w in triangles[k]} - {v}

    def cost(a: int, b: int) -> float:
        return float(np.linalg.norm(points[a] - points[b])) * float(detail[a])

    heap = [(cost(a, b), a, b) for a in sorted(around) if a not in fixed for b in sorted(ring(a))]
    heapq.heapify(heap)
    removed = 0
    while removed < count:
        _, a, b = heapq.heappop(heap)
        if a not in around or b not in around or b not in ring(a):
            continue
        # A new edge between two places of the midline would be one of both halves.
        if b in fixed and (ring(a) - ring(b) - {b}) & fixed:
            continue
        if len(ring(a) & ring(b)) != 2 or not _keeps_form(points, triangles, around, a, b):
            continue
        for k in list(around[a]):
            f = triangles[k]
            if b in f:
                for v in f:
                    around[v].discard(k)
                del triangles[k]
            else:
                triangles[k] = tuple(b if v == a else v for v in f)
                around[b].add(k)
        del around[a]
        removed += 1
        for v in sorted(ring(b)):
            if v not in fixed:
                heapq.heappush(heap, (cost(v, b), v, b))
    return np.array([triangles[k] for k in sorted(triangles)])


def _keeps_form(
    points: FloatArray,
    triangles: dict[int, tuple[int, ...]],
    around: dict[int, set[int]],
    a: int,
    b: int,
) -> bool:
    """Whether no triangle turns over or becomes a needle when a moves onto b."""
    kept = [f for f in (triangles[k] for k in sorted(around[a])) if b not in f]
    before = points[kept]
    after = points[[[b if v == a else v for v in f] for f in kept]]
    was, now = (np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) for p in (before, after))
    area = np.linalg.norm(now, axis=1)
    longest = np.linalg.norm(after - after[:, [2, 0, 1]], axis=2).max(axis=1)
    turned = (was * now).sum(axis=1) < 0.5 * np.linalg.norm(was, axis=1) * area
    return not bool((turned | (area < 0.12 * longest**2)).any())


def _left_part(base: BaseMesh, rim: IntArray) -> list[tuple[int, int]]:
    half = [int(v) for v in rim if base.vertices[v, 0] >= 0.0]
    return list(pairwise(half))


def _midline_edges(base: BaseMesh, faces: IntArray) -> list[tuple[int, int]]:
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    across = (base.vertices[pairs][:, :, 0] == 0.0).all(axis=1)
    return [(int(a), int(b)) for a, b in pairs[across]]


def _longest(base: BaseMesh, edges: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    length = [-float(np.linalg.norm(base.vertices[a] - base.vertices[b])) for a, b in edges]
    return [edges[k] for k in np.argsort(length, kind="stable")[:count]]


def _split(
    base: BaseMesh, number: IntArray, faces: IntArray, edges: list[tuple[int, int]]
) -> tuple[IntArray, csr_matrix]:
    """Split edges on the border of the half mesh at their middles.

    Args:
        base: the base mesh.
        number: new index of each of its vertices.
        faces: of the half mesh, new indices.
        edges: pairs of the base mesh's vertices.

    Returns:
        the faces, and the rows of the operator of the vertices that are added.
    """
    out, new = faces.tolist(), int(number.max()) + 1
    for k, (a, b) in enumerate(edges):
        i, j = int(number[a]), int(number[b])
        (at,) = [n for n, f in enumerate(out) if i in f and j in f]
        f = out[at]
        out[at] = [new + k if v == i else v for v in f]
        out.append([new + k if v == j else v for v in f])
    rows, columns = np.repeat(np.arange(len(edges)), 2), np.array(edges).ravel()
    shape = (len(edges), len(base.vertices))
    return np.array(out), csr_matrix((np.full(len(rows), 0.5), (rows, columns)), shape)


# ------------------------------------------------------------------ eyes
def _eyeball(base: BaseMesh) -> tuple[csr_matrix, IntArray, FloatArray]:
    """Return a finer left eyeball: rings around the optical axis.

    Its vertices are affine combinations of the base mesh's coarse ball, so that they move, turn
    and grow with it and stay a ball.
    """
    index = base.vertices_of("helper-l-eye")
    coarse = base.vertices[index]
    centre = 0.5 * (coarse.min(axis=0) + coarse.max(axis=0))
    # a little smaller than MakeHuman's, so that it stays under the lids of all people
    radius = 0.985 * float(np.median(np.linalg.norm(coarse - centre, axis=1)))
    hind = np.linspace(_RING_DEG[-1], 180.0, NUM_RINGS - len(_RING_DEG) + 2)[1:-1]
    polar = np.deg2rad(np.concatenate([_RING_DEG, hind]))
    turn = (np.arange(NUM_COLUMNS) + 0.5) * (2.0 * np.pi / NUM_COLUMNS)
    # the cornea bulges, as in the eye
    bulge = radius * (1.0 + 0.06 * np.maximum(1.0 - (polar / np.deg2rad(IRIS_DEG)) ** 2, 0.0))
    rings = np.stack(
        [np.outer(bulge * np.sin(polar), np.cos(turn)),
         np.outer(bulge * np.sin(polar), np.sin(turn)),
         np.repeat((bulge * np.cos(polar))[:, None], NUM_COLUMNS, axis=1)], axis=-1
    ).reshape(-1, 3)  # fmt: skip
    poles = np.array([[0.0, 0.0, 1.06 * radius], [0.0, 0.0, -radius]])
    wanted = np.concatenate([poles[:1], rings, poles[1:]]) + centre
    # least weights that sum to 1 and hit the point: exact for every affine motion of the ball
    system = np.concatenate([coarse.T, np.ones((1, len(index)))])
    weights = (np.linalg.pinv(system) @ np.concatenate([wanted.T, np.ones((1, len(wanted)))])).T
    rows = np.repeat(np.arange(len(wanted)), len(index))
    operator = csr_matrix(
        (weights.ravel(), (rows, np.tile(index, len(wanted)))), (len(wanted), len(base.vertices))
    )
    n = NUM_COLUMNS
    faces = [(0, 1 + i, 1 + (i + 1) % n) for i in range(n)]
    for r in range(NUM_RINGS - 1):
        for i in range(n):
            a, b = 1 + r * n + i, 1 + r * n + (i + 1) % n
            faces += [(a, a + n, b + n), (a, b + n, b)]
    last = 1 + (NUM_RINGS - 1) * n
    faces += [(last + i, last + n, last + (i + 1) % n) for i in range(n)]
    angle = np.concatenate([[0.0], np.repeat(polar, n), [np.pi]])
    return operator, np.array(faces), angle


# ------------------------------------------------------------------ both halves
def _reflect(
    base: BaseMesh,
    rows: list[csr_matrix],
    faces: IntArray,
    number: IntArray,
    others: dict[str, IntArray],
    ball: csr_matrix,
    ball_faces: IntArray,
    angle: FloatArray,
    rim: IntArray,
) -> HeadMesh:
    half = vstack(rows, format="csr")
    points = half @ base.vertices
    middle, left = np.flatnonzero(points[:, 0] == 0.0), np.flatnonzero(points[:, 0] != 0.0)
    m, n, e = len(middle), len(left), ball.shape[0]
    new = np.zeros(len(points), np.int64)
    new[middle], new[left] = np.arange(m), m + np.arange(n)
    swap = csr_matrix(
        (np.ones(len(base.mirror)), (base.mirror, range(len(base.mirror)))), (len(base.mirror),) * 2
    )
    operator = vstack(
        [half[middle], half[left], half[left] @ swap, ball, ball @ swap], format="csr"
    )
    skin = m + 2 * n
    mirror = np.concatenate(
        [np.arange(m), m + n + np.arange(n), m + np.arange(n), skin + e + np.arange(e),
         skin + np.arange(e)]
    )  # fmt: skip
    own, balls = new[faces], ball_faces + skin
    every = np.concatenate([own, mirror[own][:, ::-1], balls, mirror[balls][:, ::-1]])
    parts = {}
    for name, half_faces in others.items():
        index = new[number[np.unique(half_faces)]]
        parts[name] = np.unique(np.concatenate([index, mirror[index]]))
    parts["skin"] = np.setdiff1d(np.arange(skin), np.concatenate(list(parts.values())))
    parts["left_eyeball"] = skin + np.arange(e)
    parts["right_eyeball"] = skin + e + np.arange(e)
    directed = np.concatenate([every[:, [0, 1]], every[:, [1, 2]], every[:, [2, 0]]])
    code, back = directed @ [len(mirror), 1], directed[:, ::-1] @ [len(mirror), 1]
    open_edges = directed[~np.isin(code, back)]
    twice = len(code) - len(np.unique(code))
    if (len(mirror), len(every), twice) != (NUM_VERTICES, NUM_FACES, 0):
        raise RuntimeError(
            f"open head: expected {NUM_VERTICES} vertices and {NUM_FACES} faces of one "
            f"orientation, got {len(mirror)} and {len(every)}, {twice} edges twice"
        )
    return HeadMesh(operator, every, mirror, parts, angle, np.unique(open_edges))
