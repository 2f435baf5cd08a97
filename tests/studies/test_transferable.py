"""The search runs what it says, and nothing of it is used to confirm."""

from __future__ import annotations

import collections

from mechproc.runs.config import RunAtStep
from mechproc.studies import transferable
from mechproc.studies.transferable import ARMS, DONOR_STEPS, SEEDS, cells, runs


def test_every_cell_is_probed_at_each_donor_step_by_both_arms():
    planned = runs([1000])
    assert len({run.identity for run in planned}) == len(planned)
    vectors = [cell for cell in cells() if cell.rule.n_cells is not None]
    expected = 2 + len(DONOR_STEPS) * (len(ARMS) * len(cells()) - len(vectors))
    assert len(planned) == expected
    donors = {donor.run.identity for run in planned for donor in run.donors.values() if isinstance(donor, RunAtStep)}
    assert len(donors) == len(cells())
    assert len({cell.name for cell in cells()}) == len(cells())


def test_main_effects_of_the_list_rules_are_not_confounded_with_each_other():
    found = [cell for cell in cells() if cell.rule.kind == "identity"]
    factors = [(c.rule.n_symbols, c.tied, len(c.rule.lengths.support()), c.learning_rate) for c in found]  # pyright: ignore
    assert len(factors) == 8
    for i, j in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3)):
        counts = collections.Counter((f[i], f[j]) for f in factors)
        assert len(set(counts.values())) == 1, (i, j)


def test_search_seeds_are_no_seeds_of_confirmation():
    assert min(SEEDS) >= 1000


def test_probes_end_early_and_share_the_tasks_schedule():
    probe = transferable.random_start(transferable.HAYSTACK, 1000).training
    assert (probe.steps, probe.last_step, probe.stop_at_accuracy) == (10_000, 4_000, 0.5)
