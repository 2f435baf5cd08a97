"""Metrics by the names that they are asked for by."""

from __future__ import annotations

from analyses.interventions.metrics import METRICS, key_of, metric_of


def test_a_metric_has_one_key_however_it_is_given():
    for key, metric in METRICS.items():
        assert key_of(metric_of(key)) == key_of(metric_of(metric)) == key


def test_a_metric_of_ones_own_is_called_by_its_name():
    def margin(logits, tokens):
        return logits[..., 0]

    assert key_of(metric_of(margin)) == "margin"
