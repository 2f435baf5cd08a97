"""The project's own studies as they are declared; nothing is trained."""

from __future__ import annotations

import pytest
import torch

from mechproc.errors import ConfigError, StoreError
from mechproc.model.state import init_state
from mechproc.runs.config import RankedHeads, RunConfig
from mechproc.runs.store import Store
from mechproc.statistics.claims import CLAIM_SEEDS
from mechproc.studies import STUDIES
from mechproc.studies.registry import about, load, module, scales
from mechproc.studies.scales import SEEDS, scale_of
from mechproc.transfer.recipe import assemble

SCALED = [name for name in STUDIES if name not in ("set-to-haystack", "transferable")]
SIZED = ("language", "multiplication")
"""Studies whose tasks are not those of the scales."""


@pytest.mark.parametrize("scale", ["laptop", "paper"])
@pytest.mark.parametrize("name", SCALED)
def test_studies_are_planned_on_the_seeds_of_verdicts(name, scale):
    study = load(name, scale)
    assert study.seeds == SEEDS and len(SEEDS) == CLAIM_SEEDS
    assert all(family.descriptive for family in study.families)  # words are for claims alone
    assert study.claims and study.question == about(name)
    size = module(name).size_of(scale) if name in SIZED else scale_of(scale)
    for _, run in study.runs:
        assert run.procedure in size.tasks.values()
        for donor in run.donors.values():
            assert isinstance(donor, (RunConfig, RankedHeads)) and donor.seed == run.seed


def test_studies_of_one_scale_share_their_random_starts_and_donors():
    rules, perturbed = load("rules-by-task", "paper"), load("perturbation", "paper")
    for arm, other in (("haystack: random",) * 2, ("haystack: set, attention", "haystack: attention")):
        assert rules.run_of(arm, 10).identity == perturbed.run_of(other, 10).identity


def test_the_cell_in_which_everything_moves_is_full_transfer_where_that_leaves_positions_fresh():
    everything = "haystack: body, mean embedding, donor's LayerNorms"
    run = load("confounders", "paper").run_of(everything, 10)
    assert run.identity == load("rules-by-task", "paper").run_of("haystack: set, full", 10).identity
    donor = run.donors["set"]
    assert isinstance(donor, RunConfig)
    weights = {"set": (donor.model, init_state(donor.model, 11))}
    moved = assemble(run.recipe, run.model, 10, weights)
    for positions, same in (("fresh", True), ("donor", False)):
        other = run.recipe.replace(positions=positions, donor="set")
        state = assemble(other, run.model, 10, weights)
        assert all(torch.equal(moved[name], tensor) for name, tensor in state.items()) == same
    laptop = load("confounders", "laptop").run_of(everything, 10)
    assert laptop.recipe.positions == "fresh"


def test_every_statement_that_is_to_be_judged_has_its_claim():
    names = {claim.name for name in SCALED for claim in load(name, "paper").claims}
    assert {"1", "2", "3", "4", "5", "6, haystack", "7, haystack", "8", "9", "10", "11", "12"} <= names
    assert {"1, 20 symbols", "6, addition"} <= names


@pytest.mark.parametrize("name", SCALED)
def test_ten_seeds_can_decide_an_equivalence(name):
    """An equivalence has to be wider than what ten seeds may fail to show, or it could never be supported."""
    from mechproc.statistics.power import unseen_share

    for scale in ("laptop", "paper"):
        for claim in load(name, scale).claims:
            for contrast in claim.contrasts:
                if contrast.test == "equivalence":
                    unseen = unseen_share(CLAIM_SEEDS, claim.alpha / (2 * len(claim.contrasts)))
                    assert contrast.smallest_effect > unseen * contrast.height, claim.name


def test_number_and_choice_of_seeds():
    assert load("width", "laptop", 3).seeds == (10, 11, 12)
    assert load("width", "laptop", 12).seeds == tuple(range(10, 22))
    assert load("set-to-haystack", n_seeds=9).seeds == tuple(range(9))
    for settings, text in (
        ({"name": "widht"}, "did you mean 'width'"),
        ({"name": "width", "scale": "huge"}, "scale = 'huge'"),
        ({"name": "width", "n_seeds": 0}, "seeds = 0"),
        ({"name": "width", "n_seeds": 9_999}, "seeds = 9999 is not allowed: at most"),
        ({"name": "set-to-haystack", "scale": "paper"}, "scale = 'paper'"),
    ):
        with pytest.raises(ConfigError) as error:
            load(**settings)
        assert text in str(error.value)
    assert scales("width") and not scales("transferable")


def test_claims_without_runs_say_so(tmp_path):
    for name in SCALED:
        for verdict in load(name, "paper").judge_claims(Store(tmp_path)):
            assert verdict.word == "not run"


def test_studies_in_files(tmp_path):
    file = tmp_path / "my_study.py"
    with pytest.raises(StoreError, match="does not exist"):
        load(str(file))
    for text, problem in (("x = 1", "a function study"), ("def study(:", "SyntaxError"), ("study = lambda: 3", "= 3")):
        file.write_text(text)
        with pytest.raises(ConfigError) as error:
            load(str(file))
        assert problem in str(error.value)
    file.write_text("from mechproc.studies.width import study as whole\nSTUDY = whole(seeds=[1])\n")
    assert load(str(file)).seeds == (1,)
    with pytest.raises(ConfigError, match="seeds = 2"):
        load(str(file), n_seeds=2)
