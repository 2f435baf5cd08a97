from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.matrices import Matrices
from analyses.planted.family import families
from analyses.planted.planting import plant
from analyses.planted.symmetries import disguised, permuted_neurons, rotated_heads
from analyses.weights import barrier, match
from analyses.weights.matching import laid_over, tensors
from mechproc.errors import ConfigError
from mechproc.model.forward import forward
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures import get

from .conftest import CFG, exchanged_heads, model, random_state

ORDERS = [[2, 0, 1], [1, 0, 2]]


def in_disguise(seed: int = 0, state=None):
    state = random_state() if state is None else state
    return exchanged_heads(disguised(state, CFG, np.random.default_rng(seed)), CFG, ORDERS)


def by_part(result) -> dict[str, float]:
    return dict(zip(result.coordinates["part"], result.values.tolist(), strict=True))


class TestMatch:
    def test_a_disguise_is_seen_through(self):
        found = match(model(), model(in_disguise()))
        assert max(found.values) < 1e-12
        inverse = {layer: [order.index(h) for h in range(3)] for layer, order in enumerate(ORDERS)}
        assert found.metadata["heads"] == {
            f"L{i}.H{h}": f"L{i}.H{o}" for i in inverse for h, o in enumerate(inverse[i])
        }

    def test_neurons_are_found(self):
        state = random_state()
        order = np.random.default_rng(5).permutation(CFG.d_mlp or 1)
        other = permuted_neurons(state, CFG, np.random.default_rng(5))
        found = match(model(state), model(other)).metadata["neurons"]["L0.mlp"]
        assert (order[found] == np.arange(CFG.d_mlp or 1)).all()

    @pytest.mark.parametrize("part, tensor", [("L0.mlp", "blocks.0.mlp.W_in"), ("L1.H1", "blocks.1.attn.W_O")])
    def test_a_part_that_differs_is_found(self, part, tensor):
        state = random_state()
        changed = dict(state)
        changed[tensor] = state[tensor].clone()
        noise = torch.from_numpy(np.random.default_rng(3).normal(0, 0.5, state[tensor].shape))
        where = slice(None) if part.endswith("mlp") else 1
        changed[tensor][where] += noise[where]
        found = by_part(match(model(state), model(in_disguise(state=changed))))
        assert found.pop(part) > 0.05
        assert max(found.values()) < 0.003  # the turn that fits the changed part best moves the others a little

    def test_random_models_are_nearly_orthogonal(self):
        found = by_part(match(model(seed=0), model(seed=1)))
        assert all(value > 0.5 for part, value in found.items() if ".H" in part)

    def test_without_a_turn_bases_must_agree(self):
        state = random_state()
        rotated = rotated_heads(permuted_neurons(state, CFG, np.random.default_rng(0)), CFG, np.random.default_rng(1))
        assert max(match(model(state), model(rotated), turned=False).values) < 1e-12
        assert max(match(model(state), model(in_disguise()), turned=False).values) > 0.5

    def test_two_plantings_that_differ_in_one_part(self):
        planting = plant(families()["modsum"](), 0)
        (head,) = [part for part, variable in planting.variables.items() if variable == "first"]
        layer, number = int(head[1]), int(head[-1])
        state = {name: tensor.double() for name, tensor in planting.state.items()}
        other = dict(state)
        name = f"blocks.{layer}.attn.W_V"
        other[name] = state[name].clone()
        other[name][number] = torch.from_numpy(np.random.default_rng(0).permutation(state[name][number].numpy()))
        cfg = planting.cfg
        other = rotated_heads(permuted_neurons(other, cfg, np.random.default_rng(1)), cfg, np.random.default_rng(2))
        found = by_part(match(HookedTransformer(cfg, state), HookedTransformer(cfg, other)))
        assert found.pop(head) > 0.2
        assert max(found.values()) < 0.02

    def test_models_of_other_tokens_cannot_be_laid_over_each_other(self):
        with pytest.raises(ConfigError, match="d_vocab = 10"):
            match(model(), model(cfg=CFG.replace(d_vocab=10)))


class TestLaidOver:
    @pytest.mark.parametrize("other", ["another model", "a disguise"])
    def test_the_function_stays(self, other):
        first, second = model(seed=1), model(seed=2) if other == "another model" else model(in_disguise())
        a, b = Matrices.of(first), Matrices.of(second)
        found = tensors(laid_over(a, b).state)
        cfg = b.cfg.replace(normalization_type="LNPre", unembed_bias=True)
        tokens = torch.from_numpy(np.random.default_rng(0).integers(0, CFG.d_vocab, (4, CFG.n_ctx)))
        ours = forward(found, cfg, tokens).log_softmax(-1)
        assert torch.allclose(ours, second(tokens).log_softmax(-1).detach(), atol=1e-10)


class TestBarrier:
    ITEMS = get("identity").from_dict({"kind": "identity", "n_symbols": 7, "lengths": {"kind": "fixed", "length": 3}})

    def test_none_between_a_model_and_its_disguise(self):
        items = self.ITEMS.items(40)
        found = barrier(model(), model(in_disguise()), items, points=5)
        assert float(found.select(matching="matched", quantity="barrier").values) < 1e-9
        assert float(found.select(matching="as they are", quantity="barrier").values) > 0.1

    def test_ends_are_the_models_own_losses(self):
        items = self.ITEMS.items(40)
        models = [model(seed=1), model(seed=2)]
        found = barrier(*models, items, points=3)
        for one, name in zip(models, ("first", "second"), strict=True):
            logits = one(torch.from_numpy(items.tokens[:, : CFG.n_ctx]))
            item, position = np.nonzero(items.scored)
            losses = -logits.detach().log_softmax(-1)[item, position, items.targets[item, position]]
            ours = found.select(quantity=f"loss of the {name}").values
            assert ours == pytest.approx(float(losses.mean()))

    def test_errors(self):
        with pytest.raises(ConfigError, match="points"):
            barrier(model(), model(), self.ITEMS.items(4), points=2)
        with pytest.raises(ConfigError, match="d_vocab"):
            barrier(model(), model(cfg=CFG.replace(d_vocab=12)), self.ITEMS.items(4))
