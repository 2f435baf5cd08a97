"""Dropout whose masks are a pure function of where they fall.

The random bits are those of Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a
function from a counter of four 32-bit words and a key of two to four 32-bit words. One activation of one training step
has this place in it:

    key word 0      seed, low 32 bits
    key word 1      seed, high 32 bits
    counter word 0  step
    counter word 1  site << 16 | layer          embed 0, pattern 1, attn_out 2, mlp_out 3
    counter word 2  item                        its row in the step's batch
    counter word 3  position << 16 | unit // 4
    output word     unit % 4

``position`` is the activation's position in its item. ``unit`` is its index along d_model, or ``head * n_ctx + key``
for a pattern, whose position is the query's. The activation is dropped when the output word is below
``round(rate * 2^32)``; otherwise it is divided by ``1 - rate``. So a mask does not depend on how wide a batch is
padded, on which positions are computed, or on which engine computes them.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from mechproc.errors import require
from mechproc.model.config import ModelConfig

SITES = {"embed": 0, "pattern": 1, "attn_out": 2, "mlp_out": 3}
"""Where the forward pass drops activations, and the number of each place in the counter."""
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW, _HIGH_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32(
    c0: np.ndarray, c1: np.ndarray, c2: np.ndarray, c3: np.ndarray, key: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four output words of ten rounds of Philox4x32, for counter words that broadcast; all uint64 below 2^32."""
    k0, k1 = key
    for _ in range(10):
        # Words that differ along fewer axes stay small: the first two rounds cost next to nothing.
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1 = (product1 >> _HIGH_BITS) ^ c1 ^ np.uint64(k0), product1 & _LOW
        c2, c3 = (product0 >> _HIGH_BITS) ^ c3 ^ np.uint64(k1), product0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


class PhiloxDropout:
    """The dropout of one training step; see the module's docstring. Fits ``mechproc.model.forward.Dropout``."""

    def __init__(self, rate: float, seed: int, step: int, n_ctx: int, first_item: int = 0) -> None:
        """``first_item``: the place in the batch of the first item that is passed, where a batch comes in pieces."""
        require(0 <= rate < 1, "dropout", rate, "0 to below 1")
        require(0 <= seed < 2**64, "seed", seed, "0 to below 2^64 with dropout")
        require(n_ctx <= 2**16, "n_ctx", n_ctx, "at most 65536 with dropout")
        self.rate, self.step, self.n_ctx, self.first_item = rate, step, n_ctx, first_item
        self.key = (seed & 0xFFFFFFFF, seed >> 32)
        self.threshold = np.uint64(round(rate * 2**32))

    def __call__(
        self,
        x: Shaped[Tensor, "batch scored *unit"],
        site: str,
        layer: int,
        positions: Int[Tensor, "batch scored"] | None,
    ) -> Shaped[Tensor, "batch scored *unit"]:
        """``x`` [batch, pos, d_model], or a pattern [batch, query, head, key]: some dropped, the rest scaled up."""
        if self.rate == 0:
            return x
        n_batch, n_pos = x.shape[:2]
        places = np.arange(n_pos)[None] if positions is None else positions.cpu().numpy()
        if site == "pattern":
            units = (np.arange(x.shape[2])[:, None] * self.n_ctx + np.arange(x.shape[3])).ravel()
        else:
            units = np.arange(x.shape[2])
        kept = torch.from_numpy(self.kept(site, layer, n_batch, places, units)).to(x.device).view(x.shape)
        return x * (kept.to(x.dtype) / (1 - self.rate))

    def kept(self, site: str, layer: int, n_batch: int, positions: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Which activations stay: bool [batch, pos, unit] for ``positions`` [batch or 1, pos] and ``units`` [unit]."""
        groups, group_of_unit = np.unique(units // 4, return_inverse=True)
        words = philox4x32(
            np.array(self.step, dtype=np.uint64),
            np.array(SITES[site] << 16 | layer, dtype=np.uint64),
            np.arange(self.first_item, self.first_item + n_batch, dtype=np.uint64)[:, None, None],
            (positions[..., None].astype(np.uint64) << np.uint64(16)) | groups.astype(np.uint64),
            self.key,
        )
        kept = np.stack([word >= self.threshold for word in words], axis=-1)
        kept = kept.reshape(n_batch, positions.shape[1], 4 * len(groups))
        columns = 4 * group_of_unit + units % 4
        return kept if len(columns) == kept.shape[-1] else kept[..., columns]


def factors(
    dropout: PhiloxDropout,
    cfg: ModelConfig,
    inputs: Shaped[Tensor, "batch pos *cell"],
    positions: Int[Tensor, "batch scored"],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """What every dropout of one forward pass multiplies by, made before it: [batch, pos, ...] by ``"attn_out 1"``."""
    n_batch, n_pos = inputs.shape[:2]

    def made(site: str, layer: int, places: Tensor | None, *units: int) -> Tensor:
        ones = torch.ones((), dtype=dtype).expand(n_batch, n_pos if places is None else places.shape[1], *units)
        return dropout(ones, site, layer, places)

    found = {"embed 0": made("embed", 0, None, cfg.d_model)}
    for layer in range(cfg.n_layers):
        places = positions if layer == cfg.n_layers - 1 else None
        found[f"pattern {layer}"] = made("pattern", layer, places, cfg.n_heads, n_pos)
        for site in ("attn_out", "mlp_out"):
            found[f"{site} {layer}"] = made(site, layer, places, cfg.d_model)
    return found
