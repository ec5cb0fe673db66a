"""Slow and obvious versions of metrics, to which the fast ones are compared."""

from __future__ import annotations

import numpy as np


def z_order_stated(predicted: np.ndarray, true: np.ndarray, neighbours: int = 5) -> float:
    """Return the depth order of each vertex and its nearest true neighbours, vertex by vertex."""
    agreed = []
    for i, vertex in enumerate(true):
        distances = np.linalg.norm(true - vertex, axis=1)
        distances[i] = np.inf
        for j in np.argsort(distances, kind="stable")[:neighbours]:
            agreed.append((true[i, 2] >= true[j, 2]) == (predicted[i, 2] >= predicted[j, 2]))
    return float(np.mean(agreed))


def z_order_coded(predicted: np.ndarray, true: np.ndarray, neighbours: int = 5) -> float:
    """Return it with the whole table of distances, sorted along one axis, cut along the other."""
    table = np.linalg.norm(true[:, None] - true[None], axis=2)
    order = np.argsort(table, axis=0, kind="stable")[:, 1 : neighbours + 1]
    agreed = []
    for i in range(len(true)):
        for j in order[i]:
            agreed.append((true[i, 2] >= true[j, 2]) == (predicted[i, 2] >= predicted[j, 2]))
    return float(np.mean(agreed))


def mean_squared_to_nearest(points: np.ndarray, others: np.ndarray) -> float:
    """Return the mean squared distance of points from the nearest of others, point by point."""
    return float(np.mean([((others - point) ** 2).sum(axis=1).min() for point in points]))
