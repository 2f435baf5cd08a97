"""Many trainings of one shape, stacked along a leading axis: one computation makes an update of each.

A model of width 16 leaves a GPU idle, because starting its hundred kernels takes longer than computing them; kernels of
many models at once cost little more than those of one. The forward pass is the one of every other engine, mapped over
the members by ``torch.vmap``. Beside it a forward with a leading axis of its own (``baddbmm``) was measured on one core
of a CPU, 2 layers, widths 16 and 32, batch 64: its gradients had the same bits, it took two thirds of the time with one
member, and from 4 members on 0.8 to 1.2 of it, as much as two measurements of one thing differed. That is not worth a
second forward that has to be kept equal to the first.

Each member has what a training by itself has: data, seed, dropout, clipping by its own norm, learning rate, frozen
entries. Its numbers agree with those up to rounding, and not in their bits: batches are padded to the widest of the
members', and the libraries choose their order of additions by the size of what they multiply.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechproc.errors import TrainingError, require
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward, losses_and_correct
from mechproc.model.state import State
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch
from mechproc.training.dropout import PhiloxDropout, factors
from mechproc.training.engines.base import Snapshot
from mechproc.training.engines.torch import items_in_cache, tensors_of
from mechproc.training.evaluate import Score, Tally
from mechproc.training.optimizer import Frozen
from mechproc.training.schedule import learning_rate
from mechproc.training.stacked_optimizer import StackedAdamW


class Population:
    """Members that come and go, all of one shape and with the same training settings, on one device."""

    def __init__(self, cfg: ModelConfig, training: TrainingConfig, device: str = "cpu") -> None:
        self.cfg, self.training, self.device = cfg, training, torch.device(device)
        self.members: list[Member] = []
        self.adamw: StackedAdamW | None = None
        self.is_whole = True
        """False once an update was cut off in the middle, so that the weights are those of no step."""

    def member(
        self, cfg: ModelConfig, state: State, training: TrainingConfig, seed: int, frozen: Frozen | None = None
    ) -> Member:
        """A new member, which starts from ``state``; the arguments are those of an ``Engine``.

        Raises a ``ConfigError`` that names the field when its shape or its settings are not those of the population.
        """
        for name, ours, theirs in (("model", self.cfg, cfg), ("training", self.training, training)):
            for field in dataclasses.fields(ours):
                value, expected = getattr(theirs, field.name), getattr(ours, field.name)
                require(
                    value == expected, f"{name}.{field.name}", value, f"{expected!r}, as in the rest of the population"
                )
        if self.adamw is None:
            self.adamw = StackedAdamW(state, training, self.device)
        self.adamw.append(state, frozen)
        self.members.append(Member(self, len(self.members), seed))
        return self.members[-1]

    def remove(self, member: Member) -> None:
        """Free the place of a member."""
        self.stack.remove(member.row)
        self.members.remove(member)
        for row, other in enumerate(self.members):
            other.row = row

    def step(
        self, members: Sequence[Member], batches: Sequence[Batch], steps: Sequence[int]
    ) -> list[tuple[float, float] | TrainingError]:
        """Make one update of each of ``members``, whose batches have the same number of items.

        For each, loss (nats) and gradient norm before the update, or the ``TrainingError`` that an ``Engine`` would
        raise; the weights of a member with an error stay as they were.
        """
        found: dict[int, tuple[float, float] | TrainingError] = {}
        asked: list[tuple[int, Batch, int]] = []
        for member, batch, step in zip(members, batches, steps, strict=True):
            if bool(batch.real.any()):
                asked.append((member.row, batch, step))
            else:
                found[member.row] = TrainingError(f"the loss is nan at step {step}: its batch has no scored position")
        if asked:
            found |= self._update(sorted(asked, key=lambda one: one[0]))
        return [found[member.row] for member in members]

    def evaluate(self, members: Sequence[Member], batches: Iterable[Batch]) -> list[Score]:
        """The scores of each of ``members`` on the same batches, without dropout."""
        rows, found = self.stack.rows([member.row for member in members]), [Tally() for _ in members]
        for batch in batches:
            here = Batch(*(tensor.to(self.device) for tensor in tensors_of(batch)))
            for few in self._few_members(len(rows), len(batch), batch.inputs.shape[1]):
                read = [tensor.expand(few.stop - few.start, *tensor.shape) for tensor in tensors_of(here)]
                with torch.no_grad():
                    losses, right = self._losses_and_correct(self.stack.flat[rows[few]], read)
                for tally, loss, hits in zip(found[few], losses.tolist(), right.cpu(), strict=True):
                    tally.add(loss, hits, batch.real)
        return [tally.score() for tally in found]

    def _update(self, asked: list[tuple[int, Batch, int]]) -> dict[int, tuple[float, float] | TrainingError]:
        """``step`` of rows in ascending order, whose batches have something to score."""
        stack, places = self.stack, [row for row, _, _ in asked]
        steps = {row: step for row, _, step in asked}
        losses, gradient = self._losses_and_gradient(asked)
        norms = stack.norms(places, gradient)
        whole = torch.isfinite(stack.flat[stack.rows(places)]).all(1)
        numbers = torch.stack([losses, norms, whole.to(losses.dtype)], dim=1).tolist()  # waits for the device once
        found: dict[int, tuple[float, float] | TrainingError] = {}
        for row, (loss, norm, is_whole) in zip(places, numbers, strict=True):
            if not is_whole:
                found[row] = TrainingError(f"a weight is not finite at step {steps[row]}")
            elif not math.isfinite(loss):
                found[row] = TrainingError(f"the loss is {loss} at step {steps[row]}")
            elif not math.isfinite(norm):
                found[row] = TrainingError(f"the norm of the gradient is {norm} at step {steps[row]}")
            else:
                found[row] = loss, norm
        good = [i for i, row in enumerate(places) if not isinstance(found[row], TrainingError)]
        if good:
            rates = [learning_rate(self.training, steps[places[i]]) for i in good]
            gradient = gradient if len(good) == len(places) else gradient[stack.rows(good)]
            self.is_whole = False
            stack.update([places[i] for i in good], gradient, [numbers[i][1] for i in good], rates)
            self.is_whole = True
        return found

    def _losses_and_gradient(self, asked: list[tuple[int, Batch, int]]) -> tuple[Tensor, Tensor]:
        """Mean loss of each row's batch [row], and its gradient [row, n]."""
        stack, rows = self.stack, self.stack.rows([row for row, _, _ in asked])
        tensors = stacked([batch for _, batch, _ in asked])
        inputs, _, targets, real = tensors
        n_cells = targets.shape[3] if targets.ndim == 4 else 1
        n_scored = (n_cells * real.sum((1, 2))).to(self.device, stack.dtype)
        losses = torch.zeros(len(asked), dtype=stack.dtype, device=self.device)
        gradient = torch.zeros(len(asked), stack.flat.shape[1], dtype=stack.dtype, device=self.device)
        for few, some in self._pieces(len(asked), *inputs.shape[1:3]):
            piece = [tensor[few, some] for tensor in tensors]
            masks = self._masks(asked[few], some.start, *piece[:2])
            leaf = stack.flat[rows[few]].requires_grad_()
            sums, _ = self._losses_and_correct(leaf, [tensor.to(self.device) for tensor in piece], masks)
            means = sums / n_scored[few]
            gradient[few] += torch.autograd.grad(means.sum(), leaf)[0]
            losses[few] += means.detach()
        return losses, gradient

    def _losses_and_correct(
        self, flat: Tensor, read: list[Tensor], masks: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sum of the losses of each member [member], whose weights are ``flat`` [member, n], and what it predicts
        right [member, batch, scored, ...]."""
        inputs, positions, targets, real = read

        def logits_of(weights: State, inputs: Tensor, positions: Tensor, masks: dict[str, Tensor]) -> Tensor:
            return forward(weights, self.cfg, inputs, positions, _Masked(masks) if masks else None)

        logits = torch.vmap(logits_of)(self.stack.layout.named(flat), inputs, positions, masks or {})
        losses, correct = losses_and_correct(*(tensor.flatten(0, 1) for tensor in (logits, targets, real)))
        of_member = len(flat), inputs.shape[1]
        return losses.unflatten(0, of_member).flatten(1).sum(1), correct.unflatten(0, of_member)

    def _masks(
        self, asked: list[tuple[int, Batch, int]], first_item: int, inputs: Tensor, positions: Tensor
    ) -> dict[str, Tensor]:
        """The factors [member, batch, pos, ...] of the members' dropout by ``_Masked.key``; none at a rate of zero."""
        if not self.training.dropout:
            return {}
        each = [
            factors(self._dropout(row, step, first_item), self.cfg, read, places, self.stack.dtype)
            for (row, _, step), read, places in zip(asked, inputs, positions, strict=True)
        ]
        return {key: torch.stack([one[key] for one in each]).to(self.device) for key in each[0]}

    def _dropout(self, row: int, step: int, first_item: int) -> PhiloxDropout:
        return PhiloxDropout(self.training.dropout, self.members[row].seed, step, self.cfg.n_ctx, first_item)

    def _pieces(self, n_members: int, n_items: int, n_pos: int) -> Iterator[tuple[slice, slice]]:
        """Which members and which of their items are computed at once: on a CPU as many as the cache bears."""
        some = min(n_items, items_in_cache(self.cfg, n_pos)) if self.device.type == "cpu" else n_items
        for few in self._few_members(n_members, n_items, n_pos):
            for item in range(0, n_items, some):
                yield few, slice(item, item + some)

    def _few_members(self, n_members: int, n_items: int, n_pos: int) -> list[slice]:
        few = max(1, items_in_cache(self.cfg, n_pos) // n_items) if self.device.type == "cpu" else n_members
        return [slice(first, min(first + few, n_members)) for first in range(0, n_members, few)]

    @property
    def stack(self) -> StackedAdamW:
        """The numbers of the members, of whom there is one at least."""
        assert self.adamw is not None
        return self.adamw


class Member:
    """One training of a population, as its course sees it: a ``Worker``."""

    def __init__(self, population: Population, row: int, seed: int) -> None:
        self.population, self.row, self.seed = population, row, seed

    @property
    def weights(self) -> State:
        """The weights as they are now, on the CPU. They may change with the next step: copy what is kept."""
        return self._named("flat")

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        """An update of this member alone."""
        (found,) = self.population.step([self], [batch], [step])
        if isinstance(found, TrainingError):
            raise found
        return found

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """The score of this member alone."""
        return self.population.evaluate([self], batches)[0]

    def snapshot(self) -> Snapshot:
        """A copy of weights and moments, on the CPU."""
        copies = ({n: t.clone() for n, t in self._named(w).items()} for w in ("flat", "exp_avg", "exp_avg_sq"))
        return Snapshot(*copies)

    def restore(self, snapshot: Snapshot, step: int) -> None:
        """Go on from ``snapshot``, taken when ``step`` updates had been made."""
        self._stack.load(self.row, snapshot.weights, snapshot.exp_avg, snapshot.exp_avg_sq, step)

    def close(self) -> None:
        """Give up the place in the population."""
        self.population.remove(self)

    @property
    def _stack(self) -> StackedAdamW:
        return self.population.stack

    def _named(self, which: str) -> State:
        return self._stack.layout.named(getattr(self._stack, which)[self.row].cpu())


class _Masked:
    """A ``mechproc.model.forward.Dropout`` whose masks were made before."""

    def __init__(self, masks: dict[str, Tensor]) -> None:
        self.masks = masks

    def __call__(self, x: Tensor, site: str, layer: int, positions: Tensor | None) -> Tensor:
        return x * self.masks[f"{site} {layer}"]


def stacked(batches: Sequence[Batch]) -> list[Tensor]:
    """The tensors of batches, each [member, batch, ...], wide enough for the widest.

    What is added at the end is not real, and attention is causal, so that nothing else changes.
    """
    each = zip(*map(tensors_of, batches), strict=True)
    return [
        pad_sequence([tensor.transpose(0, 1) for tensor in tensors], batch_first=True).transpose(1, 2).contiguous()
        for tensors in each
    ]
