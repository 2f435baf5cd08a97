from __future__ import annotations

import dataclasses
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward, loss_and_correct
from mechproc.model.state import State, tensor_shapes
from mechproc.training.data import Batch
from mechproc.training.dropout import PhiloxDropout
from mechproc.training.engines.cpu import build
from mechproc.training.engines.cpu.kernel import CpuKernel, flatten, refusal, views

TOLERANCE = 1e-5
try:
    WORKS = build.library() is not None
except build.KernelUnavailableError:
    WORKS = False
PAPER = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=24, d_vocab=31)
MODELS = {
    "paper": PAPER,
    "one layer, tied, b_U, gelu, d_head 8": ModelConfig(
        1, 2, 16, 20, 300, act_fn="gelu", tied_embeddings=True, unembed_bias=True
    ),
    "three layers, no LayerNorm, relu, d_head 16": ModelConfig(3, 2, 32, 20, 7, act_fn="relu", normalization_type=None),
    "no MLP, d_head 32": ModelConfig(2, 1, 32, 20, 31, d_mlp=0),
    "heads wider than the model, odd sizes": ModelConfig(2, 3, 10, 20, 33, d_head=8, d_mlp=13),
    "tied, without LayerNorm and MLP": ModelConfig(
        2, 2, 8, 20, 5, d_mlp=0, normalization_type=None, tied_embeddings=True, unembed_bias=True
    ),
}
BATCHES = {
    "ragged": (45, 20, 6),
    "one place": (35, 19, 1),
    "more places than positions": (5, 3, 7),
    "one token": (17, 1, 1),
}


@dataclasses.dataclass(frozen=True)
class Truth:
    """Summed loss, correct predictions and gradients of the summed loss by autograd in float64."""

    loss: float
    correct: torch.Tensor
    gradients: State

    @classmethod
    def of(cls, cfg: ModelConfig, state: State, batch: Batch, dropout: PhiloxDropout | None = None) -> Truth:
        weights = {name: tensor.double().requires_grad_() for name, tensor in state.items()}
        loss, correct = loss_and_correct(
            forward(weights, cfg, batch.inputs, batch.positions, dropout), batch.targets, batch.real
        )
        loss = loss * batch.real.sum()
        loss.backward()
        return cls(loss.item(), correct, {name: w.grad for name, w in weights.items() if w.grad is not None})

    def errors(self, gradients: State) -> dict[str, float]:
        """For each tensor but b_K: max|g - g64| / max(max|g64|, 1e-3 of the largest tensor's)."""
        sizes = {name: float(g.abs().max()) for name, g in self.gradients.items()}
        floor = 1e-3 * max(sizes.values())
        return {
            name: float((gradients[name].double() - g).abs().max()) / max(sizes[name], floor)
            for name, g in self.gradients.items()
            if not name.endswith("b_K")
        }


def random_state(cfg: ModelConfig, seed: int = 0, deviation: float = 0.3) -> State:
    """Every entry random and none of them zero; LayerNorm weights around one."""
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(rng.normal(float(name.endswith(".w")), deviation, shape).astype(np.float32))
        for name, shape in tensor_shapes(cfg).items()
    }


def random_batch(cfg: ModelConfig, n_items: int, n_pos: int, n_places: int, seed: int = 0) -> Batch:
    """Places in any order and with holes; the last item has none."""
    rng = np.random.default_rng(seed)
    real = rng.random((n_items, n_places)) < 0.7
    real[0, 0], real[-1] = True, False
    arrays = (
        rng.integers(0, cfg.d_vocab, (n_items, n_pos)),
        rng.integers(0, n_pos, (n_items, n_places)),
        rng.integers(0, cfg.d_vocab, (n_items, n_places)),
        real,
    )
    return Batch(*(torch.from_numpy(a) for a in arrays))


def gradients_of(kernel: CpuKernel, state: State | torch.Tensor, batch: Batch, dropout: PhiloxDropout | None = None):
    return kernel.loss_and_gradients(state, batch.inputs, batch.positions, batch.targets, batch.real, dropout)


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("cfg", MODELS.values(), ids=MODELS)
def test_everything_equals_float64_autograd(cfg: ModelConfig, sizes: tuple[int, int, int], lanes: int):
    deviation = 0.1 if cfg.normalization_type is None else 0.3
    state, batch = random_state(cfg, deviation=deviation), random_batch(cfg, *sizes)
    truth, kernel = Truth.of(cfg, state, batch), CpuKernel(cfg, lanes=lanes)
    loss, correct, gradients = gradients_of(kernel, state, batch)
    assert loss == pytest.approx(truth.loss, rel=1e-6)
    assert torch.equal(correct, truth.correct)
    errors = truth.errors(gradients)
    assert max(errors.values()) < TOLERANCE, errors
    for name, gradient in gradients.items():
        if name.endswith("b_K"):  # the true gradient is zero: see whether float64 agrees, too
            assert truth.gradients[name].abs().max() < 1e-12 * max(1, truth.loss)
            assert gradient.abs().max() <= 1e-6 * gradients[name.replace("b_K", "b_Q")].abs().max()
    evaluated = kernel.evaluate(state, batch.inputs, batch.positions, batch.targets, batch.real)
    assert evaluated[0] == loss and torch.equal(evaluated[1], correct)


@pytest.mark.parametrize("cfg", [PAPER, MODELS["heads wider than the model, odd sizes"]], ids=["paper", "odd"])
def test_dropout_masks_are_those_of_the_reference(cfg: ModelConfig, lanes: int):
    state, batch = random_state(cfg), random_batch(cfg, 37, 20, 3)
    dropout = PhiloxDropout(0.2, seed=2**40 + 7, step=5, n_ctx=cfg.n_ctx)
    truth = Truth.of(cfg, state, batch, dropout)
    loss, correct, gradients = gradients_of(CpuKernel(cfg, lanes=lanes), state, batch, dropout)
    assert loss == pytest.approx(truth.loss, rel=1e-6) and torch.equal(correct, truth.correct)
    assert max(truth.errors(gradients).values()) < TOLERANCE
    assert truth.loss != pytest.approx(Truth.of(cfg, state, batch).loss, rel=1e-3)  # it does drop


@pytest.mark.parametrize("drops", [False, True])
def test_many_places_and_long_sequences(lanes: int, drops: bool):
    """More places than are collected for one pass over the unembedding, and hundreds of keys."""
    cfg = ModelConfig(2, 2, 8, 130, 9)
    state, batch = random_state(cfg), random_batch(cfg, 18, 130, 130)
    dropout = PhiloxDropout(0.1, 3, 0, cfg.n_ctx) if drops else None
    truth = Truth.of(cfg, state, batch, dropout)
    _, _, gradients = gradients_of(CpuKernel(cfg, lanes=lanes), state, batch, dropout)
    assert max(truth.errors(gradients).values()) < TOLERANCE


def test_vanishing_gradients_stay_small(lanes: int):
    """With equal rows in W_E and equal columns in W_U, as after a full transfer, the body has no gradient."""
    state, batch = random_state(PAPER), random_batch(PAPER, 40, 20, 3)
    state["embed.W_E"][:] = state["embed.W_E"].mean(0)
    state["unembed.W_U"][:] = state["unembed.W_U"].mean(1, keepdim=True)
    truth = Truth.of(PAPER, state, batch)
    _, _, gradients = gradients_of(CpuKernel(PAPER, lanes=lanes), state, batch)
    largest = float(truth.gradients["unembed.W_U"].abs().max())
    assert float((gradients["unembed.W_U"] - truth.gradients["unembed.W_U"]).abs().max()) < TOLERANCE * largest
    for name, gradient in gradients.items():
        assert name == "unembed.W_U" or float(gradient.abs().max()) < 1e-5 * largest, name


def test_large_scores_and_logits_stay_finite(lanes: int):
    state, batch = random_state(PAPER, deviation=3.0), random_batch(PAPER, 33, 20, 3)
    truth = Truth.of(PAPER, state, batch)
    loss, _, gradients = gradients_of(CpuKernel(PAPER, lanes=lanes), state, batch)
    assert loss == pytest.approx(truth.loss, rel=1e-4)
    assert all(bool(g.isfinite().all()) for g in gradients.values())


def test_ties_go_to_the_smaller_token(lanes: int):
    state, batch = random_state(PAPER), random_batch(PAPER, 60, 5, 2)
    state["unembed.W_U"][:, 9:] = state["unembed.W_U"][:, 3:4]
    batch.targets[:] = torch.tensor([3, 9])
    _, correct, _ = gradients_of(CpuKernel(PAPER, lanes=lanes), state, batch)
    logits = forward({name: w.double() for name, w in state.items()}, PAPER, batch.inputs, batch.positions)
    first = torch.from_numpy(np.argmax(np.round(logits.numpy(), 6), -1))  # float64 products of equal columns may differ
    assert torch.equal(correct, (first == batch.targets) & batch.real)
    assert correct[:, 0].any() and not correct[:, 1].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name", ["embed.W_E", "blocks.0.attn.W_K", "blocks.1.attn.b_V", "blocks.0.mlp.b_in", "ln_final.w", "blocks.0.ln1.b"]
)
def test_numbers_that_are_not_finite_reach_the_loss(name: str, value: float, lanes: int):
    state, batch = random_state(PAPER), random_batch(PAPER, 20, 8, 1)
    batch.inputs[:] = 4
    state[name].view(-1)[4 * 16 if name == "embed.W_E" else 1] = value
    loss, _, _ = gradients_of(CpuKernel(PAPER, lanes=lanes), state, batch)
    assert not torch.tensor(loss).isfinite()


def bits(threads: int, lanes: int) -> bytes:
    state, batch = random_state(PAPER), random_batch(PAPER, 403, 20, 3)
    loss, correct, gradients = gradients_of(CpuKernel(PAPER, threads, lanes), state, batch)
    return repr(loss).encode() + correct.numpy().tobytes() + flatten(gradients, PAPER).numpy().tobytes()


def test_bits_do_not_depend_on_threads(lanes: int):
    once = bits(1, lanes)
    for threads in (2, 3, 8):
        assert bits(threads, lanes) == once, threads


@pytest.mark.slow
def test_bits_do_not_depend_on_the_process(lanes: int):
    folder = str(Path(__file__).parent)
    script = f"import sys; sys.path.insert(0, {folder!r}); import test_kernel as t; "
    script += f"sys.stdout.buffer.write(t.bits(2, {lanes}))"
    runs = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
    assert [run.communicate()[0] for run in runs] == [bits(1, lanes)] * 2


def _in_child(kernel: CpuKernel, state: State, batch: Batch, pipe) -> None:
    pipe.send(gradients_of(kernel, state, batch)[0])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_after_threads_started(lanes: int):
    state, batch = random_state(PAPER), random_batch(PAPER, 100, 20, 3)
    kernel = CpuKernel(PAPER, 2, lanes)
    loss = gradients_of(kernel, state, batch)[0]
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_in_child, args=(kernel, state, batch, there))
    child.start()
    try:
        assert here.poll(30), "the child hangs"
        assert here.recv() == loss
    finally:
        child.kill()
        child.join()


def test_a_state_and_its_flat_vector_are_the_same_to_it(lanes: int):
    state, batch = random_state(PAPER), random_batch(PAPER, 20, 8, 2)
    kernel, flat = CpuKernel(PAPER, lanes=lanes), flatten(state, PAPER)
    assert all(torch.equal(part, state[name]) for name, part in views(flat, PAPER).items())
    of_state, of_flat = (flatten(gradients_of(kernel, weights, batch)[2], PAPER) for weights in (state, flat))
    assert torch.equal(of_state, of_flat)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("inputs", 31, "token"),
        ("inputs", -1, "token"),
        ("positions", 8, "position"),
        ("positions", -1, "position"),
        ("targets", 31, "target"),
    ],
)
def test_what_is_outside_the_model_is_refused(field: str, value: int, said: str, lanes: int):
    batch = random_batch(PAPER, 20, 8, 2)
    getattr(batch, field)[0, 0] = value
    with pytest.raises(ConfigError, match=said):
        gradients_of(CpuKernel(PAPER, lanes=lanes), random_state(PAPER), batch)


def test_what_is_outside_but_not_scored_does_not_matter(lanes: int):
    state, batch = random_state(PAPER), random_batch(PAPER, 20, 8, 2)
    kernel = CpuKernel(PAPER, lanes=lanes)
    loss = gradients_of(kernel, state, batch)[0]
    batch.positions[~batch.real], batch.targets[~batch.real] = 99, -100
    assert gradients_of(kernel, state, batch)[0] == loss


def test_wrong_shapes_are_refused(lanes: int):
    kernel, state, b = CpuKernel(PAPER, lanes=lanes), random_state(PAPER), random_batch(PAPER, 20, 8, 2)
    with pytest.raises(ConfigError, match=r"tokens = \(20, 25\).*n_ctx = 24"):
        kernel.evaluate(state, torch.zeros(20, 25, dtype=torch.long), b.positions, b.targets, b.real)
    with pytest.raises(ConfigError, match="targets"):
        kernel.evaluate(state, b.inputs, b.positions, b.targets[:, :1], b.real)
    with pytest.raises(ConfigError, match="weights"):
        kernel.evaluate(flatten(state, PAPER)[1:], b.inputs, b.positions, b.targets, b.real)


def test_models_it_does_not_cover_are_refused_with_the_reason():
    assert "width 4, 8, 16, 32, not 5" in str(refusal(ModelConfig(1, 2, 10, 8, 9)))
    assert "vectors" in str(refusal(ModelConfig(1, 2, 16, 8, 9, input="vectors", d_input=3)))
    assert "LayerNorms" in str(refusal(ModelConfig(1, 2, 16, 8, 9, normalization_type="LNPre")))
    with pytest.raises(ConfigError, match="not 5"):
        CpuKernel(ModelConfig(1, 2, 10, 8, 9))


FAULTS = {
    "one element": ("g_bias[j] += sb[column + j] * scale;", "g_bias[j] += sb[column + j] * scale * (j != 3);"),
    "one head": (
        "dqs + at + t * Ds, dk, dv,",
        "dqs + at + t * Ds, h == 1 ? dv : dk, dv,",
    ),
    "an omitted term": ("dx[i] * rs[t] - sum - x[i] * dot;", "dx[i] * rs[t] - sum;"),
    "a slope": ("* (1.0f + 3 * a * xx);", "* (1.0f + 2 * a * xx);"),
    "a masked key": ("int32_t(s) > seen[t] ?", "int32_t(s) > seen[t] + 1 ?"),
    "a lost token of one lane": ("if (t > last[l]) return;", "if (t > last[l] - (l == 2)) return;"),
    "a constant factor": ("double to_w = 0, to_b = 0;", "double to_w = 0, to_b = 0; scale *= i ? 1.0f : 1.001f;"),
}


@pytest.mark.slow
@pytest.mark.skipif(not WORKS, reason="the CPU kernel cannot run here")
@pytest.mark.parametrize("fault", list(FAULTS))
def test_seeded_faults_are_caught(fault: str, tmp_path, monkeypatch):
    source, (right, wrong) = build.SOURCE.read_text(), FAULTS[fault]
    assert source.count(right) == 1
    (tmp_path / "kernel.cpp").write_text(source.replace(right, wrong))
    monkeypatch.setattr(build, "SOURCE", tmp_path / "kernel.cpp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    state, batch = random_state(PAPER), random_batch(PAPER, 45, 20, 6)
    _, _, gradients = gradients_of(CpuKernel(PAPER), state, batch)
    assert max(Truth.of(PAPER, state, batch).errors(gradients).values()) > 10 * TOLERANCE
