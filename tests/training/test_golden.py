"""A few steps of one training, as they were when the golden file was written.

After an intended change: ``python tests/training/test_golden.py`` writes the file again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.state import init_state
from mechproc.procedures.lengths import Uniform
from mechproc.procedures.sequences import Identity
from mechproc.training.config import TrainingConfig
from mechproc.training.data import TrainStream
from mechproc.training.engines.base import ReferenceEngine

GOLDEN = Path(__file__).parents[1] / "golden" / "train_step.json"
TOLERANCE = 1e-5
WATCHED = ("embed.W_E", "blocks.0.attn.W_Q", "blocks.1.mlp.W_out", "blocks.1.attn.b_O", "blocks.0.ln2.w", "unembed.W_U")
"""Tensors of which the first five numbers are compared."""


def train_steps(dropout: float) -> dict[str, Any]:
    """Four steps of a 2-layer model on identity, and what they went through, in the order of cause and effect."""
    procedure = Identity(lengths=Uniform(2, 5), n_symbols=10)
    cfg = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=procedure.n_ctx, d_vocab=procedure.d_vocab)
    training = TrainingConfig(
        steps=8, batch_size=32, learning_rate=1e-2, warmup_steps=2, clip_norm=0.1, dropout=dropout
    )
    stream, state = TrainStream(procedure, 3, training.batch_size), init_state(cfg, 3)
    batches = [stream.batch(step, None) for step in range(4)]
    tokens = hashlib.sha256(b"".join(b.inputs.numpy().tobytes() for b in batches)).hexdigest()
    engine = ReferenceEngine(cfg, state, training, seed=3)
    losses, norms = zip(*(engine.step(batch, step) for step, batch in enumerate(batches)), strict=True)
    return {
        "tokens": tokens,
        "initial_weights": {name: state[name].flatten()[:5].tolist() for name in WATCHED},
        "losses": list(losses),
        "gradient_norms": list(norms),
        "final_weights": {name: engine.weights[name].flatten()[:5].tolist() for name in WATCHED},
    }


BLAME = {
    "tokens": "the items changed: look at Identity, the length distributions, Procedure.block and the splits "
    "(and raise the procedure's version)",
    "initial_weights": "the initialisation changed: look at model/state.py (and raise MODEL_VERSION)",
    "losses": "items and first weights are the same, but losses differ: at step 0, look at model/forward.py and the "
    "loss (with dropout only: at the masks); later, at gradients, clipping, AdamW and the schedule",
    "gradient_norms": "losses are the same, but gradients differ: look at backward passes and at how losses are "
    "averaged",
    "final_weights": "losses and gradients are the same, but the update differs: look at AdamW (decay on W_* only), "
    "clipping and the learning rate",
}


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_golden_train_step(dropout: float) -> None:
    golden, found = json.loads(GOLDEN.read_text())[str(dropout)], train_steps(dropout)
    for what, blame in BLAME.items():
        expected = golden[what]
        if isinstance(expected, dict):
            same = all(found[what][name] == pytest.approx(expected[name], abs=TOLERANCE) for name in expected)
        else:
            same = found[what] == (expected if isinstance(expected, str) else pytest.approx(expected, abs=TOLERANCE))
        assert same, f"dropout {dropout}, {what}: {blame}.\nwas {expected}\nnow {found[what]}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.write_text(json.dumps({str(rate): train_steps(rate) for rate in (0.0, 0.2)}, indent=1) + "\n")
