"""Fitting linear probes, and what is measured of one. scikit-learn does the fitting.

Activations are standardised (mean 0, variance 1 over the training rows). A classifier is multinomial logistic
regression with an L2 penalty, C = ``C``; a probe of an ordinal latent's value is ridge regression, alpha = ``ALPHA``.
Neither is tuned.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mechproc.errors import require

C, ALPHA = 1.0, 1.0
"""Inverse strength of the penalty of classifiers; strength of the penalty of ridge regression."""
TOLERANCE, MAX_ITERATIONS = 1e-3, 100
"""Where the optimiser (L-BFGS) stops: a gradient this small, or this many steps."""
BLOCKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of the training rows after which the online code fits its next probe."""
UNIFORM = 0.01
"""Weight of the uniform distribution in the online code's probabilities, so that a new value has a finite length."""


def classifier(x: np.ndarray, label: np.ndarray) -> Any:
    """A probe that tells values apart, fitted to ``x`` [row, d] and ``label`` [row]; of one value, a constant."""
    if len(np.unique(label)) == 1:
        return DummyClassifier(strategy="most_frequent").fit(x, label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a limit of the steps is part of the probe
        warnings.filterwarnings("ignore", "The number of unique classes")  # the first blocks of the code are small
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=TOLERANCE, max_iter=MAX_ITERATIONS))
        return fitted.fit(x, label)


def regression(x: np.ndarray, value: np.ndarray) -> Pipeline:
    """A probe of a number, fitted to ``x`` [row, d] and ``value`` [row]."""
    return make_pipeline(StandardScaler(), Ridge(alpha=ALPHA)).fit(x, value)


def explained(probe: Pipeline, x: np.ndarray, value: np.ndarray) -> float:
    """R squared on test rows: the share of the variance that a regression explains. Negative when it is worse than
    the mean of the test rows."""
    return float(r2_score(value, probe.predict(x)))


def majority(train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on ``test`` of the most frequent value of ``train``."""
    values, counts = np.unique(train, return_counts=True)
    return float((test == values[counts.argmax()]).mean())


def cross_entropy(probe: Any, x: np.ndarray, label: np.ndarray, n_values: int) -> float:
    """Mean nats for each label, with ``UNIFORM`` of the probability spread over ``n_values`` values."""
    known = probe.predict_proba(x)
    column = np.searchsorted(probe.classes_, label)
    column = np.minimum(column, len(probe.classes_) - 1)
    seen = probe.classes_[column] == label
    chance = np.where(seen, known[np.arange(len(label)), column], 0.0)
    return float(-np.log((1 - UNIFORM) * chance + UNIFORM / n_values).mean())


def description_length(x: np.ndarray, label: np.ndarray, n_values: int) -> float:
    """The online code of the labels given the activations, as a share of the uniform code (Voita and Titov 2020).

    Rows are sent block by block, each with the probabilities of a probe fitted to all blocks before it; the first with
    the uniform code. 1: the activations save nothing. Rows of one item should stand together.
    """
    ends = [max(1, round(share * len(label))) for share in BLOCKS]
    nats = ends[0] * np.log(n_values)
    for start, end in itertools.pairwise(ends):
        if end > start:
            probe = classifier(x[:start], label[:start])
            nats += (end - start) * cross_entropy(probe, x[start:end], label[start:end], n_values)
    return float(nats / (len(label) * np.log(n_values)))


def information(probe: Any, x: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Usable information (Xu et al. 2020), in nats for each test label: what the probe saves against the frequencies of
    the training labels. Negative when it is worse than those."""
    n_values = len(np.union1d(train, test))
    prior = DummyClassifier(strategy="prior").fit(np.zeros((len(train), 1)), train)
    return cross_entropy(prior, np.zeros((len(test), 1)), test, n_values) - cross_entropy(probe, x, test, n_values)


def directions(probe: Any, rank: int | None = None) -> np.ndarray:
    """What a probe reads: orthonormal directions of the activation, [rank, d].

    Of a regression the one direction that its value depends on; of a classifier the ``rank`` leading right singular
    vectors of its weights in the units of the activation, the mean over the classes taken out. By default a quarter of
    the activation's dimensions, at least one, and no more than one fewer than there are classes.
    """
    scaler, linear = probe[0], probe[-1]
    weights = np.atleast_2d(linear.coef_) / scaler.scale_
    if len(weights) > 1:
        weights = weights - weights.mean(axis=0)
    d = weights.shape[1]
    most = min(d, max(1, len(weights) - 1))
    n = min(most, max(1, d // 4)) if rank is None else rank
    require(1 <= n <= most, "rank", rank, f"1 to {most}")
    return np.linalg.svd(weights, full_matrices=False)[2][:n]


def writes(reads: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The change of the activation that goes with one unit along each direction that is read, [rank, d].

    With ``reads`` R [rank, d] and the covariance S of ``x`` [row, d] it is (R S R^T)^-1 R S, the least-squares
    prediction of x from what is read. x - (x - mean) R^T ``writes`` is then the activation without what R reads, with
    the smallest change in units of S (Belrose et al. 2023, LEACE). Directions that a probe reads may have little
    variance of their own; a change along them alone would leave most of what varies with the latent in place.
    """
    covariance = np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])
    return np.linalg.pinv(reads @ covariance @ reads.T) @ reads @ covariance
