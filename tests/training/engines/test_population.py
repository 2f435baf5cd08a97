"""Members of a population make the updates that they would make by themselves, up to rounding."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError, TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.state import State, tensor_shapes
from mechproc.procedures import EcaVectors, Haystack, Procedure, ReversedAddition, Uniform
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch, TrainStream, evaluation_batches, evaluation_items
from mechproc.training.engines import torch as torch_engine
from mechproc.training.engines.base import ReferenceEngine
from mechproc.training.engines.population import Member, Population
from mechproc.training.engines.torch import tensors_of
from mechproc.training.optimizer import Frozen

HAYSTACK = Haystack(lengths=Uniform(1, 6), n_keys=10, n_values=12)
PROCEDURES: dict[str, list[Procedure]] = {
    "one place, ragged": [HAYSTACK, HAYSTACK, Haystack(lengths=Uniform(1, 2), n_keys=10, n_values=12)],
    "many places": [ReversedAddition(lengths=Uniform(2, n), protocol="paper") for n in (3, 5, 4)],
    "vectors": [
        EcaVectors(number=number, width=8, lengths=Uniform(1, n)) for number, n in ((30, 3), (110, 2), (90, 4))
    ],
}
SHAPES: dict[str, dict[str, Any]] = {
    "LayerNorm, untied": {},
    "tied": {"tied_embeddings": True, "unembed_bias": True},
    "no LayerNorm, no MLP": {"normalization_type": None, "d_mlp": 0},
    "LayerNorm without weights": {"normalization_type": "LNPre", "act_fn": "relu"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "clipped": {"clip_norm": 0.5},
    "not clipped, decayed": {"clip_norm": None, "weight_decay": 0.5},
    "dropout": {"dropout": 0.2, "schedule": "linear", "warmup_steps": 0},
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
"""Of the largest change of a tensor's entries since the start, after one update and after twenty."""


def shape_for(procedures: list[Procedure], **settings: Any) -> ModelConfig:
    n_cells = procedures[0].n_cells
    vectors = {} if n_cells is None else {"input": "vectors", "d_input": n_cells}
    return ModelConfig(
        n_layers=2, n_heads=2, d_model=8, n_ctx=max(p.n_ctx for p in procedures),
        d_vocab=n_cells or max(p.d_vocab for p in procedures), **vectors, **settings,
    )  # fmt: skip


def random_state(cfg: ModelConfig, seed: int, dtype: torch.dtype) -> State:
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(rng.normal(float(name.endswith(".w")), 0.3, size)).to(dtype)
        for name, size in tensor_shapes(cfg).items()
    }


def masks(cfg: ModelConfig, state: State) -> list[dict[str, torch.Tensor] | None]:
    """Nothing frozen, all attention of a layer, some positions."""
    attention = {n: torch.ones(t.shape, dtype=torch.bool) for n, t in state.items() if n.startswith("blocks.0.attn")}
    rows = torch.arange(cfg.n_ctx)[:, None].expand(-1, cfg.d_model) < 2
    return [None, attention, {"pos_embed.W_pos": rows}]


def held_together(
    procedures: list[Procedure],
    cfg: ModelConfig,
    training: TrainingConfig,
    dtype: torch.dtype,
    n: int = 3,
    device: str = "cpu",
) -> None:
    """Three members beside three references: losses, norms and weights after one update and after ``n``."""
    states = [random_state(cfg, seed, dtype) for seed in range(3)]
    frozen = masks(cfg, states[0])
    population = Population(cfg, training, device)
    members = [
        population.member(cfg, s, training, 5 + i, f) for i, (s, f) in enumerate(zip(states, frozen, strict=True))
    ]
    alone = [ReferenceEngine(cfg, s, training, 5 + i, f) for i, (s, f) in enumerate(zip(states, frozen, strict=True))]
    streams = [TrainStream(procedure, seed, training.batch_size) for seed, procedure in enumerate(procedures)]
    rel = TOLERANCE[dtype]
    for step in range(n):
        batches = [stream.batch(step, None) for stream in streams]
        expected = [engine.step(batch, step) for engine, batch in zip(alone, batches, strict=True)]
        for found, (loss, norm) in zip(population.step(members, batches, [step] * 3), expected, strict=True):
            assert found == (pytest.approx(loss, rel=rel), pytest.approx(norm, rel=rel))
        if step in (0, n - 1):
            for trained in zip(members, alone, states, frozen, strict=True):
                close(*trained, rel)


def close(member: Member, engine: ReferenceEngine, state: State, frozen: Frozen | None, rel: float) -> None:
    """Weights of a member and of its reference, which both started at ``state``."""
    moved = {name: float((w.detach() - state[name]).abs().max()) for name, w in engine.weights.items()}
    floor = 1e-3 * max(moved.values())
    for name, wanted in engine.weights.items():
        apart = (member.weights[name] - wanted.detach()).abs().max()
        rounding = 4 * torch.finfo(wanted.dtype).eps * float(wanted.detach().abs().max())
        assert float(apart) <= rel * max(moved[name], floor) + rounding, name
        still = (frozen or {}).get(name)
        assert moved[name] > 0 or still is not None or name.endswith("b_K"), name  # b_K's true gradient is zero
        if still is not None:
            assert torch.equal(member.weights[name][still], state[name][still])


@pytest.fixture(params=[1, 3_000], ids=["one item at a time", "a few"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "CACHE_NUMBERS", request.param)


def settings_of(name: str, batch_size: int = 12) -> TrainingConfig:
    """Adam's eps is so large that no update is made of rounding, such as that of b_K."""
    plain = TrainingConfig(steps=30, batch_size=batch_size, learning_rate=1e-2, warmup_steps=5, adam_eps=1e-3)
    return plain.replace(**SETTINGS[name])


@pytest.mark.parametrize(("kind", "settings"), list(zip(PROCEDURES, SETTINGS, strict=True)))
def test_updates_are_those_of_trainings_by_themselves(kind: str, settings: str):
    dtype = torch.float32 if kind == "vectors" else torch.float64  # vectors are float32 for every engine
    held_together(PROCEDURES[kind], shape_for(PROCEDURES[kind]), settings_of(settings), dtype)


def test_twenty_updates_are_those_of_trainings_by_themselves():
    """Through the warm-up, clipped and decayed, with one member and some entries frozen."""
    procedures, training = PROCEDURES["one place, ragged"], settings_of("clipped").replace(weight_decay=0.5)
    held_together(procedures, shape_for(procedures), training, torch.float64, n=20)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_that_other_engines_train(shape: str):
    cfg = shape_for(PROCEDURES["one place, ragged"], **SHAPES[shape])
    held_together(PROCEDURES["one place, ragged"], cfg, settings_of("clipped"), torch.float64)


def test_updates_in_the_precision_of_trainings():
    procedures = PROCEDURES["many places"]
    held_together(procedures, shape_for(procedures), settings_of("clipped"), torch.float32)


@pytest.mark.usefixtures("pieces")
def test_pieces_make_the_update_of_the_whole():
    procedures = PROCEDURES["many places"]
    held_together(procedures, shape_for(procedures), settings_of("dropout", batch_size=4), torch.float64, n=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", PROCEDURES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_updates_on_cuda_are_those_of_the_cpu(kind: str, dtype: torch.dtype):
    if kind == "vectors" and dtype == torch.float64:
        pytest.skip("vectors are float32")
    held_together(PROCEDURES[kind], shape_for(PROCEDURES[kind]), settings_of("dropout"), dtype, 20, "cuda")


def test_everything_is_computed_on_the_device():
    """Torch's meta device computes nothing, and refuses what mixes it with another, as a GPU does."""
    training, population = settings_of("dropout"), Population(CFG, settings_of("dropout"), "meta")
    state = random_state(CFG, 0, torch.float32)
    for frozen in masks(CFG, state):
        population.member(CFG, state, training, 0, frozen)
    stack = population.stack
    for places in ([0, 1, 2], [0, 2]):
        losses, gradient = population._losses_and_gradient([(place, batch_of(place), 0) for place in places])
        norms = stack.norms(places, gradient)
        stack.update(places, gradient, [2.0] * len(places), [0.1] * len(places))
        assert all(t.device.type == "meta" for t in (losses, gradient, norms, stack.flat, stack.exp_avg))
    batch = Batch(*(tensor.to("meta") for tensor in tensors_of(batch_of(0))))
    expanded = [tensor.expand(3, *tensor.shape) for tensor in tensors_of(batch)]
    assert all(found.device.type == "meta" for found in population._losses_and_correct(stack.flat, expanded))


# ---- who is in it ----------------------------------------------------------------------------------------------------


CFG = shape_for([HAYSTACK])
TRAINING = settings_of("clipped")


def batch_of(seed: int, step: int = 0) -> Batch:
    with TrainStream(HAYSTACK, seed, TRAINING.batch_size) as stream:
        return stream.batch(step, None)


def two() -> tuple[Population, list[Member]]:
    population = Population(CFG, TRAINING)
    return population, [
        population.member(CFG, random_state(CFG, seed, torch.float32), TRAINING, seed) for seed in (0, 1)
    ]


def test_members_come_and_go_while_the_others_stay_as_they_are():
    """The last two of three are at other steps: one alone after the first left, the other joined late."""
    population, (first, second) = two()
    reference = ReferenceEngine(CFG, random_state(CFG, 1, torch.float32), TRAINING, 1)
    population.step([first, second], [batch_of(0), batch_of(1)], [0, 0])
    reference.step(batch_of(1), 0)
    late = population.member(CFG, random_state(CFG, 2, torch.float32), TRAINING, 2)
    first.close()
    assert [member.row for member in (second, late)] == [0, 1]
    found = population.step([late, second], [batch_of(2), batch_of(1, 1)], [0, 1])
    assert found[1] == pytest.approx(reference.step(batch_of(1, 1), 1), rel=1e-5)
    other = ReferenceEngine(CFG, random_state(CFG, 2, torch.float32), TRAINING, 2)
    assert found[0] == pytest.approx(other.step(batch_of(2), 0), rel=1e-5)
    before = second.snapshot().weights
    late.step(batch_of(2, 1), 1)
    other.step(batch_of(2, 1), 1)
    assert all(torch.equal(second.weights[name], before[name]) for name in before)
    close(second, reference, random_state(CFG, 1, torch.float32), None, TOLERANCE[torch.float32])
    close(late, other, random_state(CFG, 2, torch.float32), None, TOLERANCE[torch.float32])


def test_a_snapshot_goes_on_in_another_population():
    population, (first, second) = two()
    population.step([first, second], [batch_of(0), batch_of(1)], [0, 0])
    elsewhere = Population(CFG, TRAINING)
    resumed = elsewhere.member(CFG, random_state(CFG, 9, torch.float32), TRAINING, 1)
    resumed.restore(second.snapshot(), 1)
    first.close()
    assert resumed.step(batch_of(1, 1), 1) == second.step(batch_of(1, 1), 1)
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in second.weights.items())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("weight", "a weight is not finite at step 3"),
        ("loss", "the loss is nan at step 3"),
        ("gradient", "the norm of the gradient is (inf|nan) at step 3"),
        ("batch", "the loss is nan at step 3: its batch has no scored position"),
    ],
)
def test_a_member_that_fails_changes_nothing_and_disturbs_no_other(fault: str, message: str):
    population, undisturbed = Population(CFG, TRAINING), Population(CFG, TRAINING)
    bad, good, batch = random_state(CFG, 0, torch.float32), random_state(CFG, 1, torch.float32), batch_of(0)
    if fault == "weight":
        bad["ln_final.w"][0] = torch.nan
    elif fault == "loss":
        bad["unembed.W_U"].fill_(3e38)
    elif fault == "gradient":
        bad["ln_final.w"].fill_(1e-25)
        bad["ln_final.b"].zero_()
        bad["unembed.W_U"].mul_(1e25)
    else:
        batch = Batch(batch.inputs, batch.positions, batch.targets, torch.zeros_like(batch.real))
    members = [population.member(CFG, state, TRAINING, 0) for state in (bad, good)]
    error, fine = population.step(members, [batch, batch_of(1)], [3, 3])
    assert isinstance(error, TrainingError) and re.fullmatch(message, str(error))
    assert all(torch.equal(members[0].weights[name].nan_to_num(), bad[name].nan_to_num()) for name in bad)
    alone = undisturbed.member(CFG, good, TRAINING, 0)
    assert fine == pytest.approx(alone.step(batch_of(1), 3), rel=1e-6)
    with pytest.raises(TrainingError, match=message):
        members[0].step(batch, 3)


def test_what_does_not_fit_is_refused_by_the_name_of_the_field():
    population, _ = two()
    state = random_state(CFG, 0, torch.float32)
    with pytest.raises(
        ConfigError, match=r"training.batch_size = 13 is not allowed: 12, as in the rest of the population"
    ):
        population.member(CFG, state, TRAINING.replace(batch_size=13), 0)
    with pytest.raises(ConfigError, match=r"model.d_mlp = 8 is not allowed: 32, as in the rest"):
        population.member(CFG.replace(d_mlp=8), state, TRAINING, 0)
    with pytest.raises(ConfigError, match=r"dtype of the weights = torch.float64 is not allowed"):
        population.member(CFG, random_state(CFG, 0, torch.float64), TRAINING, 0)
    with pytest.raises(ConfigError, match=r"frozen tensor blocks.7 is not one of this model's"):
        population.member(CFG, state, TRAINING, 0, {"blocks.7": torch.ones(1, dtype=torch.bool)})
    assert len(population.members) == 2


@pytest.mark.usefixtures("pieces")
def test_scores_are_those_of_the_reference():
    batches = evaluation_batches(evaluation_items(HAYSTACK, 300, "test"))
    population, members = two()
    for member, found in zip(members[::-1], population.evaluate(members[::-1], batches), strict=True):
        expected = ReferenceEngine(CFG, member.weights, TRAINING, 0).evaluate(batches)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.n_correct.tolist() == expected.n_correct.tolist()
        assert found.n_scored.tolist() == expected.n_scored.tolist()
