"""Logistic regression with a Gaussian prior, for one data set under many weightings at one time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

Array = npt.NDArray[np.float64]

MAX_STEPS = 200
MAX_MOVE = 1.5  # of a logit in one step: below 1.79 Newton's step can only raise the concave objective
TOLERANCE = 1e-9  # of the gradient, relative to the total weight


def fit_logistic(design: Array, outcome: Array, weights: Array, precision: Array, start: Array | None = None) -> Array:
    """Maximise sum_i w_i [y_i log p_i + (1 - y_i) log(1 - p_i)] - sum_j precision_j b_j^2 / 2 with logit p = X b.

    Newton's method. A step that would move any logit too far is shortened: the curvature of a logistic likelihood
    changes at most by the factor exp(|move|), so that each shortened step raises the objective (F. Bach, Electronic
    Journal of Statistics 4 (2010) 384-414, proposition 1).

    Args:
        design: [n, p].
        outcome: [n] in [0, 1]; a share is as many wins and losses.
        weights: [B, n] not negative, such as how often an item was drawn.
        precision: [p] of the prior of each coefficient; with all of them positive the maximum exists and is unique.
        start: [p] where to start; zero by default.

    Returns:
        [B, p] coefficients.
    """
    size = design.shape[1]
    coefficients = np.tile(np.zeros(size) if start is None else start, (len(weights), 1))
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)
    reach = np.abs(design).max(axis=0, initial=0)
    tolerance = TOLERANCE * np.maximum(1.0, weights.sum(axis=1))
    for _ in range(MAX_STEPS):
        chance = expit(coefficients @ design.T)
        weighted = weights * chance
        gradient = (weights * outcome - weighted) @ design - precision * coefficients
        if (np.abs(gradient).max(axis=1, initial=0) <= tolerance).all():
            break
        weighted *= 1 - chance
        information = (weighted @ squares).reshape(-1, size, size) + np.diag(precision)
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        move = np.abs(step) @ reach  # of any logit, at most
        coefficients += step * np.minimum(1.0, MAX_MOVE / np.maximum(move, MAX_MOVE))[:, None]
    return coefficients


def information_matrix(design: Array, weights: Array, precision: Array, coefficients: Array) -> Array:
    """Return [B, p, p] the negative second derivative of the objective."""
    chance = expit(coefficients @ design.T)
    size = design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)
    curvature = (weights * chance * (1 - chance)) @ squares
    return np.asarray(curvature.reshape(-1, size, size) + np.diag(precision))


def score_influences(
    design: Array, outcome: Array, weights: Array, precision: Array, coefficients: Array, gradient: Array
) -> Array:
    """Return [B, n] how one more copy of each item moves a function of the coefficients whose gradient is [B, p].

    g' H^-1 x_i (y_i - p_i): the function's slope through the sandwich estimator's bread and one item's score.
    """
    bread = information_matrix(design, weights, precision, coefficients)
    direction = np.linalg.solve(bread, gradient[:, :, None])[:, :, 0]
    return np.asarray((outcome - expit(coefficients @ design.T)) * (direction @ design.T))
