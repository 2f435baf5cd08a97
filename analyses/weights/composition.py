"""How much of what one part writes another one reads, from their weights: composition scores and principal angles.

The composition score of a writer A [., d_model] with a reader B [d_model, .] is |A B| / (|A| |B|), Frobenius norms
(Elhage et al. 2021): Q-, K- and V-composition for the three inputs of a head, and the same for the input of an MLP and
for the logits. Its baseline is the same two matrices, the writer's turned by a random rotation of the residual stream,
which keeps both spectra: the square has the mean 1 / n over uniform rotations of n dimensions.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.linalg import subspace_angles

from analyses.matrices import Matrices, product, said_of
from analyses.models import Models, by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.parts import components
from mechproc.result import Label, Result, Where

INPUTS = ("Q", "K", "V", "in", "logits")
"""Of a head, of an MLP, of the unembedding."""
SCORES = ("score", "baseline", "percentile")
ANGLES = ("smallest angle", "overlap", "baseline")
NOT_AFTER = "the reader does not come after the writer, or has no such input"
SPANS = "one of the two spans the residual stream, so that every angle is 0"
NO_CHANGE = "one of the two matrices is 0"
ON_PLANTINGS = (
    "On 100 plantings of each family the largest score of a part found all that matter in 100 %, but in modular sums "
    "(4 %) and beside a constant part (0 %); parts without effect were above the threshold in 0 to 26 %, by family"
)
"""Measured with the threshold of ``analyses.planted.calibrate``."""
RANK = 1e-9
"""Singular values below this share of the largest one are zeros."""


@sized_threads
def composition(models: Models, *, folded: bool = True, n_random: int = 200, seed: int = 0) -> Result:
    """Composition scores: axes ``writer``, ``reader``, ``input``, ``quantity`` and ``seed``.

    Writers are embeddings, heads (OV) and MLPs (W_out); readers are heads (inputs ``Q``, ``K``, ``V``), MLPs (``in``)
    and ``unembed`` (``logits``). Quantities:

    - ``score``: from 0 to 1;
    - ``baseline``: the root mean square of the score over random rotations, 1 / sqrt(n);
    - ``percentile``: the share of random rotations with a lower score.

    Arguments:

    - ``folded``: whether LayerNorms are folded into the weights that read them;
    - ``n_random``: random rotations, for percentiles;
    - ``seed``: of the rotations.

    Errors: ``ConfigError`` for models that do not fit.
    """
    require(n_random >= 1, "n_random", n_random, "at least 1")
    of_seed = by_seed(models)
    all_matrices = [Matrices.of(model, folded, label) for label, model in of_seed.items()]
    basis = visible_basis(all_matrices[0])
    turns = _rotations(basis, n_random, np.random.default_rng(seed))

    def measured(matrices: Matrices) -> dict[tuple[str, str, str], list[float]]:
        written, read = _grams(writers(matrices), 0), _grams(readers(matrices), 1)
        random = _random_scores(written, read, turns)
        found = {}
        for (w, writer), row in zip(written.items(), random, strict=True):
            for ((r, name), reader), turned in zip(read.items(), row, strict=True):
                if not after(w, r, matrices) or not writer.any() or not reader.any():
                    continue
                score = float(np.sqrt(max((writer * reader).sum(), 0.0) / (np.trace(writer) * np.trace(reader))))
                found[w, r, name] = [score, len(basis) ** -0.5, float((turned < score).mean())]
        return found

    return _result(
        "composition", SCORES, "fraction", "higher: more of what the writer writes is read",
        f"that anything is written there in an item, or that it matters; biases, patterns and LayerNorms' scales are "
        f"left out. {ON_PLANTINGS}",
        dict(zip(of_seed, map(measured, all_matrices), strict=True)), all_matrices,
        {"n_random": n_random, "seed_of_rotations": seed}, NO_CHANGE,
    )  # fmt: skip


@sized_threads
def angles(models: Models, *, folded: bool = True) -> Result:
    """Principal angles between what parts write and what later parts read: axes as those of ``composition``.

    - ``smallest angle``: in degrees (scipy's ``subspace_angles``);
    - ``overlap``: the mean squared cosine of the principal angles, from 0 to 1;
    - ``baseline``: its mean over random rotations, the larger dimension / n.

    - ``folded``: whether LayerNorms are folded into the weights that read them.

    Only subspaces count, not how strongly each direction is written or read. Where one of the two spans the residual
    stream, as MLPs and embeddings usually do, the cell is undefined.
    """
    of_seed = by_seed(models)
    all_matrices = [Matrices.of(model, folded, label) for label, model in of_seed.items()]

    def measured(matrices: Matrices) -> dict[tuple[str, str, str], list[float]]:
        basis, found = visible_basis(matrices), {}
        written = {w: _span(basis @ a.T) for w, a in writers(matrices).items()}
        read = {key: _span(basis @ b) for key, b in readers(matrices).items()}
        for w, a in written.items():
            for (r, name), b in read.items():
                widths = [a.shape[1], b.shape[1]]
                if not after(w, r, matrices) or min(widths) == 0 or max(widths) == len(basis):
                    continue
                principal = subspace_angles(a, b)
                overlap = float((np.cos(principal) ** 2).mean())
                found[w, r, name] = [float(np.degrees(principal.min())), overlap, max(widths) / len(basis)]
        return found

    return _result(
        "principal angles", ANGLES, "smallest angle: degrees; overlap and baseline: fraction",
        "higher overlap, smaller angle: the reader reads more of the directions that are written",
        "how much is written or read along these directions, or that it matters",
        dict(zip(of_seed, map(measured, all_matrices), strict=True)), all_matrices, {}, SPANS,
    )  # fmt: skip


def writers(matrices: Matrices) -> dict[str, np.ndarray]:
    """What each part writes into the residual stream: [., d_model]."""
    found = {"embed": matrices.state["embed.W_E"], "pos": matrices.state["pos_embed.W_pos"]}
    for part in components(matrices.cfg):
        own = matrices.of_part(part)
        found[part] = product(own["OV"] if "OV" in own else own["W_out"])
    return found


def readers(matrices: Matrices) -> dict[tuple[str, str], np.ndarray]:
    """What each input of each part reads from the residual stream, by part and input: [d_model, .]."""
    found = {}
    for part in components(matrices.cfg):
        own = matrices.of_part(part)
        if "QK" in own:
            qk = product(own["QK"])
            found |= {(part, "Q"): qk, (part, "K"): qk.T, (part, "V"): product(own["OV"])}
        else:
            found[part, "in"] = own["W_in"][0]
    return {**found, ("unembed", "logits"): matrices.state["unembed.W_U"]}


def after(writer: str, reader: str, matrices: Matrices) -> bool:
    """Whether the reader comes after the writer in the forward pass."""

    def stage(part: str) -> int:
        if part in ("embed", "pos"):
            return 0
        if part == "unembed":
            return 2 * matrices.cfg.n_layers + 1
        layer, _, rest = part.removeprefix("L").partition(".")
        return 1 + 2 * int(layer) + (rest == "mlp")

    return stage(reader) > stage(writer)


def visible_basis(matrices: Matrices) -> np.ndarray:
    """An orthonormal basis, in rows, of what readers can see: without the all-ones direction once it is folded away."""
    d_model = matrices.cfg.d_model
    if not matrices.folded or matrices.cfg.normalization_type is None:
        return np.eye(d_model)
    q, _ = np.linalg.qr(np.concatenate([np.ones((d_model, 1)), np.eye(d_model)[:, 1:]], axis=1))
    return q[:, 1:].T


@functools.lru_cache(maxsize=256)
def scores(matrices: Matrices) -> dict[tuple[str, str, str], float]:
    """The composition score of every writer, reader and input; 0 where a matrix is 0. Not to be changed."""
    written, read = _grams(writers(matrices), 0), _grams(readers(matrices), 1)
    found = {}
    for w, a in written.items():
        for (r, name), b in read.items():
            if after(w, r, matrices):
                size = np.trace(a) * np.trace(b)
                found[w, r, name] = float(np.sqrt(max((a * b).sum(), 0.0) / size)) if size > 0 else 0.0
    return found


# ---- inside ----------------------------------------------------------------------------------------------------------


def _grams(matrices: dict, axis: int) -> dict:
    """A^T A of writers (axis 0), B B^T of readers (axis 1): |A B|^2 is the sum of the product of their entries."""
    return {key: m.T @ m if axis == 0 else m @ m.T for key, m in matrices.items()}


def _rotations(basis: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform rotations of the visible subspace, [n, d_model, d_model]."""
    width = len(basis)
    q, r = np.linalg.qr(rng.normal(size=(n, width, width)))
    turns = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
    return basis.T @ turns @ basis


def _random_scores(written: dict, read: dict, turns: np.ndarray) -> np.ndarray:
    """Scores with the writers turned, [writer, reader, rotation]."""
    a, b = np.stack(list(written.values())), np.stack(list(read.values()))
    sizes = np.trace(a, axis1=1, axis2=2)[:, None, None] * np.trace(b, axis1=1, axis2=2)[None, :, None]
    flat = b.reshape(len(b), -1)
    squares = np.stack([(t.T @ a @ t).reshape(len(a), -1) @ flat.T for t in turns], axis=-1)
    return np.sqrt(np.maximum(squares, 0) / np.where(sizes > 0, sizes, 1.0))


def _span(matrix: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns, in columns."""
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    return u[:, s > RANK * max(float(s.max(initial=0.0)), np.finfo(float).tiny)]


def _result(
    name: str, quantities: tuple[str, ...], unit: str, direction: str, not_shown: str,
    found: dict[Label, dict[tuple[str, str, str], list[float]]], all_matrices: list[Matrices], settings: dict, why: str,
) -> Result:  # fmt: skip
    first = all_matrices[0]
    rows = list(writers(first))
    parts = list(dict.fromkeys(part for part, _ in readers(first)))
    had = set(readers(first))
    inputs = [i for i in INPUTS if any((part, i) in had for part in parts)]
    values = np.full((len(rows), len(parts), len(inputs), len(quantities), len(found)), np.nan)
    undefined: list[tuple[Where, str]] = []
    for w, writer in enumerate(rows):
        for r, reader in enumerate(parts):
            for i, of_reader in enumerate(inputs):
                where: Where = {"writer": writer, "reader": reader, "input": of_reader}
                if (reader, of_reader) not in had or not after(writer, reader, first):
                    undefined.append((where, NOT_AFTER))
                    continue
                for s, (seed, cells) in enumerate(found.items()):
                    if (writer, reader, of_reader) in cells:
                        values[w, r, i, :, s] = cells[writer, reader, of_reader]
                    else:
                        undefined.append(({**where, "seed": seed}, why))
    return Result(
        name=name,
        values=values,
        axes=("writer", "reader", "input", "quantity", "seed"),
        coordinates={"writer": rows, "reader": parts, "input": inputs, "quantity": quantities, "seed": list(found)},
        unit=unit,
        direction=direction,
        what_it_does_not_show=f"{not_shown}.",
        undefined=undefined,
        metadata={**said_of(all_matrices), **settings},
    )
