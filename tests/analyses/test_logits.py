"""Direct logit attribution and logit lens: by hand, against TransformerLens's ActivationCache, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses import logits
from analyses.interventions import edges
from analyses.interventions.items import Pairs, cut, minimal_pairs
from mechproc.errors import ConfigError
from mechproc.model.hooked import HookedTransformer
from mechproc.pretrained import load_pretrained
from mechproc.procedures import get
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Fixed

from .conftest import LOGIT, alternating, planted
from .interventions.grid import GRID, TASK, model
from .interventions.grid import items as grid_items

PAIRS = Pairs(alternating((1, 2, 6), (2, 3, 6)), alternating((3, 4, 6), (4, 1, 6)))


def test_the_copying_head_writes_the_answer():
    found = logits.run([planted()], PAIRS)
    shares = dict(zip(found.coordinates["sender"], found.values[:, 0], strict=True))
    assert shares == pytest.approx({"embed": 0, "pos": 0, "L0.H0": LOGIT, "L0.H1": 0, "L0.b_O": 0}, abs=1e-4)
    assert found.metadata["score"] == logits.AGAINST_FOIL and "frozen" in found.metadata["layernorm"]
    against_mean = logits.run([planted()], PAIRS.clean)
    assert against_mean.values[2, 0] == pytest.approx(LOGIT * 4 / 5, abs=1e-4)
    assert against_mean.metadata["score"] == logits.AGAINST_MEAN


@pytest.mark.parametrize("kind", GRID)
def test_the_shares_add_up_to_the_score(kind):
    items = grid_items(kind)
    found = logits.run([model(kind)], items)
    np.testing.assert_allclose(found.values.sum(0), list(found.metadata["intact"].values()), rtol=1e-9, atol=1e-9)
    assert np.abs(found.values).max() > 0.05


def test_a_sender_that_is_left_out_is_noticed(monkeypatch):
    original = edges.contributions
    monkeypatch.setattr(logits, "contributions", lambda run: {k: v for k, v in original(run).items() if k != "L0.mlp"})
    with pytest.raises(RuntimeError, match="do not trust the shares"):
        logits.run([model("usual")], grid_items("usual"))


class TestAgainstTransformerLens:
    @pytest.fixture
    def setting(self):
        pairs = minimal_pairs(Haystack(lengths=Fixed(4), n_keys=6, n_values=8), "answer", 6)
        pairs = Pairs(cut(pairs.clean), cut(pairs.corrupt))
        ours = model("usual").process_weights()
        item, position = np.nonzero(pairs.clean.scored)
        right, foil = (torch.from_numpy(x.targets[item, position]) for x in (pairs.clean, pairs.corrupt))
        assert len(set(position)) == 1
        cache = ours.run_with_cache(torch.from_numpy(pairs.clean.tokens))[1]
        return ours, pairs, cache, right, foil, int(position[0])

    def test_direct_logit_attribution(self, setting):
        ours, pairs, cache, right, foil, place = setting
        heads, names = cache.stack_head_results(layer=-1, pos_slice=place, return_labels=True)
        expected = cache.logit_attrs(heads, right, incorrect_tokens=foil, pos_slice=place).mean(-1)
        rest, labels = cache.decompose_resid(layer=-1, mode="mlp", pos_slice=place, return_labels=True)
        others = cache.logit_attrs(rest, right, incorrect_tokens=foil, pos_slice=place).mean(-1)
        found = logits.run([ours], pairs)
        theirs = {name.replace("H", ".H"): v for name, v in zip(names, expected.tolist(), strict=True)}
        theirs |= {
            {"embed": "embed", "pos_embed": "pos", "0_mlp_out": "L0.mlp", "1_mlp_out": "L1.mlp"}[name]: v
            for name, v in zip(labels, others.tolist(), strict=True)
        }
        assert len(theirs) == 8
        for sender, value in theirs.items():
            assert found.select(sender=sender).values[0] == pytest.approx(value, abs=1e-5), sender

    def test_logit_lens(self, setting):
        ours, pairs, cache, right, foil, place = setting
        stack, names = cache.accumulated_resid(incl_mid=True, pos_slice=place, return_labels=True)
        assert names == ["0_pre", "0_mid", "1_pre", "1_mid", "final_post"]  # 1_pre is what layer 0 leaves
        found = logits.lens([ours], pairs, metric="logit_diff")
        with torch.inference_mode():
            read = ours.unembed(ours.ln_final(stack))
        rows = torch.arange(len(right))
        expected = (read[:, rows, right] - read[:, rows, foil]).mean(-1)
        np.testing.assert_allclose(found.values[:, 0], expected.numpy(), atol=1e-5)


class TestLens:
    def test_the_last_site_is_the_model_itself(self):
        rule = get("sort")()
        found = logits.lens({3: load_pretrained("sort", 3)}, rule, n_items=40)
        assert found.coordinates["site"][0] == "blocks.0.hook_resid_pre"
        assert found.values[-1, 0] == pytest.approx(found.metadata["intact"]["3"]) and found.values[-1, 0] > 0.9
        assert found.values[0, 0] < 0.3

    def test_each_position(self):
        found = logits.lens([planted()], alternating((1, 2, 4), (3, 4, 6)), positions="each")
        assert found.coordinates["position"] == (1, 2, 3, 4)
        assert found.values[-1, :, 0].tolist() == [1.0] * 4 and found.values[0].max() == 0.0

    @pytest.mark.parametrize("kind", ["attention only", "no LayerNorm", "LNPre", "vectors", "tied"])
    def test_unusual_models(self, kind):
        found = logits.lens([model(kind)], grid_items(kind), metric="loss")
        assert found.values[-1, 0] == pytest.approx(found.metadata["intact"]["0"])


@pytest.mark.parametrize(
    "function, arguments, match",
    [
        (logits.run, {"items": [1]}, "items = 'list'"),
        (logits.run, {"items": TASK, "pair": "nope"}, "pair kind 'nope'"),
        (logits.run, {"items": TASK.items(4), "n_items": 2}, "n_items = 2"),
        (logits.run, {"items": TASK.items(4), "pair": "answer"}, "items = 'Items'"),
        (logits.lens, {"items": TASK.items(4), "metric": "logit_diff"}, "metric = 'logit_diff'"),
        (logits.lens, {"items": TASK.items(4), "positions": [1]}, "positions"),
    ],
)
def test_refusals(function, arguments, match):
    with pytest.raises(ConfigError, match=match):
        function([model("usual")], **arguments)


def test_weights_that_are_not_finite_name_the_seed():
    broken: HookedTransformer = planted()
    broken.embed.W_E.data[:] = torch.nan
    with pytest.raises(ConfigError, match="logits of seed 8"):
        logits.run({8: broken}, PAIRS)
