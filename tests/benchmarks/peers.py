"""The other ways to train the same model: what a user would write with ``transformers`` or TransformerLens.

Both compute logits at every position, of items that Python makes one by one, and update with torch's AdamW.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mechproc.model.config import ModelConfig
from mechproc.model.convert.gpt2 import to_gpt2
from mechproc.model.state import State
from mechproc.procedures import Haystack, Procedure
from mechproc.training.config import TrainingConfig


def haystack_item(rng: random.Random, procedure: Haystack) -> tuple[list[str], list[int]]:
    """One item in token names and where its scored predictions are made."""
    n = rng.randint(int(procedure.lengths.support().min()), procedure.lengths.max)
    keys = rng.sample(range(procedure.n_keys), n)
    values = [rng.randrange(procedure.n_values) for _ in keys]
    asked = rng.randrange(n)
    pairs = [name for k, v in zip(keys, values, strict=True) for name in (f"k{k}", f"v{v}")]
    return [*pairs, f"q{keys[asked]}", f"v{values[asked]}"], [2 * n]


def reversed_addition_item(rng: random.Random, procedure: Procedure) -> tuple[list[str], list[int]]:
    """The same; the paper's protocol scores at the symbols of the answer."""
    digits = procedure.lengths.max
    a, b = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in "ab")
    answer = [f"c{d}" for d in reversed(str(a + b))]
    names = [*reversed(str(a)), "+", *reversed(str(b)), "=", *answer, "."]
    first = 2 * digits + 2
    return names, list(range(first, first + digits + 1))


Item = Callable[[random.Random, Procedure], tuple[list[str], list[int]]]
ITEMS: dict[str, Item] = {"haystack": haystack_item, "reversed-addition": reversed_addition_item}  # type: ignore[dict-item]


class Peer:
    """A model of another library with the loop that one writes around it."""

    def __init__(
        self, model: torch.nn.Module, logits: Callable[[Tensor], Tensor], procedure: Procedure, training: TrainingConfig
    ) -> None:
        self.model, self.logits, self.procedure, self.training = model, logits, procedure, training
        decayed = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas)
        self.token_of = {name: i for i, name in enumerate(procedure.token_names)}
        self.rng = random.Random(0)

    def batch(self, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [batch, pos], where predictions are scored (bool [batch, pos]), and the next tokens."""
        tokens = torch.zeros(n_items, self.procedure.n_ctx + 1, dtype=torch.long)
        scored = torch.zeros(n_items, self.procedure.n_ctx, dtype=torch.bool)
        for i in range(n_items):
            names, places = ITEMS[self.procedure.kind](self.rng, self.procedure)
            tokens[i, : len(names)] = torch.tensor([self.token_of[name] for name in names])
            scored[i, places] = True
        return tokens[:, :-1], scored, tokens[:, 1:]

    def step(self, batch: tuple[Tensor, Tensor, Tensor]) -> float:
        """Forward, backward, clipping, AdamW; the loss in nats."""
        tokens, scored, targets = batch
        loss = F.cross_entropy(self.logits(tokens)[scored], targets[scored])
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm or torch.inf)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self, n_items: int) -> float:
        """Token accuracy on new items, 0 to 1."""
        tokens, scored, targets = self.batch(n_items)
        return (self.logits(tokens).argmax(-1) == targets)[scored].float().mean().item()

    def train(self) -> None:
        """A training as ``TrainingConfig`` says: data, steps, validations, test."""
        cfg = self.training
        for step in range(cfg.steps):
            if step % cfg.evaluate_every == 0:
                self.evaluate(cfg.n_validation)
            self.step(self.batch(cfg.batch_size))
        self.evaluate(cfg.n_validation)
        self.evaluate(cfg.n_test)


def gpt2(cfg: ModelConfig, state: State, procedure: Procedure, training: TrainingConfig) -> Peer:
    """GPT-2 of ``transformers`` with scaled dot-product attention."""
    model = to_gpt2(cfg, state)
    model.train()
    model.set_attn_implementation("sdpa")
    return Peer(model, lambda tokens: model(tokens).logits, procedure, training)


def native(cfg: ModelConfig, procedure: Procedure, training: TrainingConfig) -> Peer:
    """TransformerLens 4's own model of the same shape, freshly initialised."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    names = ("d_model", "d_head", "n_layers", "n_ctx", "n_heads", "d_vocab", "eps", "act_fn", "d_mlp")
    shape = TransformerBridgeConfig(**{name: getattr(cfg, name) for name in names}, normalization_type="LN")
    model = TransformerBridge.boot_native(shape, device="cpu")
    model.train()
    return Peer(model, lambda tokens: model(tokens), procedure, training)
