"""Probes on data whose answer is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from analyses.probing import fit
from mechproc.errors import ConfigError


@pytest.fixture
def data():
    """Four classes along two of six dimensions, one of which has little variance; and the classes."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 600)
    x = rng.normal(size=(600, 6))
    x[:, 0] = 0.1 * x[:, 0] + (label & 1)
    x[:, 1] = 0.001 * x[:, 1] + 0.01 * (label >> 1)
    return x, label


def test_a_classifier_does_not_depend_on_the_units_of_the_activation(data):
    x, label = data
    probe = fit.classifier(x[:400], label[:400])
    assert probe.score(x[400:], label[400:]) > 0.99
    again = fit.classifier(1000 * x[:400] + 7, label[:400])
    assert np.array_equal(again.predict(1000 * x[400:] + 7), probe.predict(x[400:]))
    assert isinstance(probe[-1], LogisticRegression)
    assert fit.classifier(x[:9], np.zeros(9, dtype=int)).score(x, label) == (label == 0).mean()


def test_majority_takes_the_frequencies_of_training():
    assert fit.majority(np.array([1, 1, 2]), np.array([2, 2, 1, 3])) == 0.25


def test_the_online_code_is_short_for_what_can_be_read_and_long_for_noise(data):
    x, label = data
    short = fit.description_length(x, label, 4)
    noise = fit.description_length(x, np.random.default_rng(1).permutation(label), 4)
    assert short < 0.35 and noise > 0.95
    # one class: everything after the first block is known to all but the share of the uniform distribution
    constant = fit.description_length(x, np.zeros(600, dtype=int), 4)
    first = round(600 / 32)
    sure = -np.log(1 - fit.UNIFORM + fit.UNIFORM / 4)
    assert constant == pytest.approx((first * np.log(4) + (600 - first) * sure) / (600 * np.log(4)))


def test_a_value_that_was_not_seen_has_a_finite_length(data):
    x, label = data
    seen = label < 3
    probe = fit.classifier(x[seen], label[seen])
    unseen = fit.cross_entropy(probe, x[~seen], label[~seen], 4)
    assert unseen == pytest.approx(-np.log(fit.UNIFORM / 4))


def test_information_is_the_entropy_that_a_probe_saves(data):
    x, label = data
    probe = fit.classifier(x[:400], label[:400])
    saved = fit.information(probe, x[400:], label[:400], label[400:])
    assert np.log(4) - 0.2 < saved < np.log(4)
    shuffled = np.random.default_rng(2).permutation(label)
    nothing = fit.classifier(x[:400], shuffled[:400])
    assert fit.information(nothing, x[400:], shuffled[:400], shuffled[400:]) < 0.02


def test_what_a_probe_reads_is_gone_after_the_change_and_the_rest_stays(data):
    x, label = data
    probe = fit.classifier(x, label)
    reads = fit.directions(probe, 2)
    np.testing.assert_allclose(reads @ reads.T, np.eye(2), atol=1e-10)
    writes, mean = fit.writes(reads, x), x.mean(axis=0)
    erased = x + (mean - x) @ reads.T @ writes
    np.testing.assert_allclose((erased - mean) @ reads.T, 0, atol=1e-10)
    assert fit.classifier(erased[:400], label[:400]).score(erased[400:], label[400:]) < 0.4
    spread = erased.std(axis=0) / x.std(axis=0)
    assert (spread[2:] > 0.9).all() and (spread[:2] < 0.3).all()


def test_directions_of_little_variance_do_not_hide_what_goes_with_the_value():
    """The value is in two copies, one with noise: the probe reads their difference from the noise, and both change."""
    rng = np.random.default_rng(0)
    value, noise = rng.normal(size=(2, 500))
    x = np.stack([value + noise, noise + 0.01 * rng.normal(size=500), value], axis=1)
    probe = fit.regression(x, value)
    reads = fit.directions(probe)
    erased = x + (x.mean(axis=0) - x) @ reads.T @ fit.writes(reads, x)
    correlations = [abs(np.corrcoef(erased[:, i], value)[0, 1]) for i in range(3)]
    assert max(correlations) < 0.1


def test_the_number_of_directions(data):
    x, label = data
    assert len(fit.directions(fit.classifier(x, label))) == 1  # a quarter of six
    assert len(fit.directions(fit.regression(x, label))) == 1
    with pytest.raises(ConfigError, match=r"rank = 4.*1 to 3"):
        fit.directions(fit.classifier(x, label), 4)


def test_explained_variance(data):
    x, label = data
    assert fit.explained(fit.regression(x[:400], label[:400]), x[400:], label[400:]) > 0.95
    noise = np.random.default_rng(3).normal(size=600)
    assert fit.explained(fit.regression(x[:400], noise[:400]), x[400:], noise[400:]) < 0.05
