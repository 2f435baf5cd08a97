"""The usual study: parts of donors are moved into fresh models, which are trained on a task and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mechproc.config import nearest
from mechproc.errors import ConfigError, PartError, require
from mechproc.model.config import ModelConfig
from mechproc.procedures import Procedure
from mechproc.runs.config import Donor, RankedHeads, RunAtStep, RunConfig
from mechproc.runs.donors import ModelFile, ShippedModel
from mechproc.statistics.claims import Claim
from mechproc.statistics.comparisons import MIN_SEEDS, Family
from mechproc.studies.pretraining import TRAINING
from mechproc.studies.shape import PAPER, Shape
from mechproc.studies.study import Study
from mechproc.training.config import TASK, TrainingConfig
from mechproc.transfer import Recipe, attention_only, fresh, full, mlp_only, permuted

DonorSource = Procedure | Donor | str | Callable[[int], Donor]
"""Where the donors of a study come from: a procedure that they are pretrained on; a function of the seed; the name of a
rule whose pretrained models ship, or a model file; or one donor for all seeds."""


def transfer(
    name: str,
    *,
    task: Procedure,
    donors: Mapping[str, DonorSource],
    arms: Mapping[str, Recipe] | None = None,
    model: Shape | ModelConfig = PAPER,
    training: TrainingConfig = TASK,
    donor_model: Shape | None = None,
    donor_training: TrainingConfig = TRAINING,
    seeds: Iterable[int] = range(MIN_SEEDS),
    against: str | None = "random",
    pairs: Sequence[tuple[str, str]] = (),
    n_seeds: int | None = None,
    measure: str = "accuracy",
    smallest_effect: float | None = None,
    claims: Sequence[Claim] = (),
    shared_donors: bool = False,
    question: str = "",
) -> Study:
    """All arms for all seeds on one task.

    ``arms``: name -> recipe, which names donors of ``donors``; by default a random start, and full, attention, MLPs and
    permuted attention of the one donor. ``against``: every other arm is compared with this one; ``pairs``: further
    comparisons (treatment, control); all of them are one family, judged on ``n_seeds`` seeds (by default those given,
    at least 8) and planned for ``smallest_effect``, in the unit of ``measure``.

    The models' ``n_ctx`` and ``d_vocab`` follow from their procedures. Donors that are trained have the shape
    ``donor_model``, by default ``model`` with tied embeddings; donor seed i feeds fresh seed i.

    Errors: ``ConfigError`` or ``PartError`` before anything runs, for donors that do not fit with both shapes.
    """
    seeds = tuple(seeds)
    require(len(seeds) > 0, "seeds", seeds, "at least one")
    require(len(donors) > 0, "donors", dict(donors), "at least one")
    arms = dict(arms) if arms is not None else _usual_arms(donors)
    named = {donor for recipe in arms.values() for donor in recipe.donor_names}
    for donor in sorted(named - set(donors)):
        raise ConfigError(f"donors.{donor} is missing: an arm names it{nearest(donor, donors)}")
    shape = model if isinstance(model, Shape) else None
    made = model.model_for(task) if isinstance(model, Shape) else model
    source_shape = donor_model or (shape or _shape_of(made)).replace(tied_embeddings=True, n_ctx=None, d_vocab=None)
    sources = {d: _source(d, source, source_shape, donor_training) for d, source in donors.items()}
    runs = []
    for seed in seeds:
        of_seed = {donor: sources[donor](seed) for donor in sorted(named)}
        for arm, recipe in arms.items():
            fed = {donor: of_seed[donor] for donor in recipe.donor_names}
            runs.append((arm, _run(arm, task, made, training, seed, recipe, fed)))
    compared = [(arm, against) for arm in arms if arm != against] if against is not None else []
    if against is not None and against not in arms:
        raise ConfigError(f"against = {against!r} is not an arm: {', '.join(arms)}{nearest(against, arms)}")
    compared = [*compared, *pairs]
    families = []
    if compared:
        planned = max(MIN_SEEDS, len(seeds)) if n_seeds is None else n_seeds
        settings = {"n_seeds": planned, "measure": measure, "smallest_effect": smallest_effect}
        families.append(Family(task.short_name, tuple(compared), **settings))
    return Study(name, runs, families, claims, shared_donors=shared_donors, question=question)


def _usual_arms(donors: Mapping[str, DonorSource]) -> dict[str, Recipe]:
    require(len(donors) == 1, "arms", None, f"given where there are several donors: {', '.join(donors)}")
    (donor,) = donors
    return {
        "random": fresh(),
        "full": full(donor),
        "attention": attention_only(donor),
        "MLPs": mlp_only(donor),
        "permuted attention": permuted(attention_only(donor)),
    }


def _run(
    arm: str,
    task: Procedure,
    model: ModelConfig,
    training: TrainingConfig,
    seed: int,
    recipe: Recipe,
    donors: dict[str, Donor],
) -> RunConfig:
    try:
        return RunConfig(task, model, training, seed, recipe, donors)
    except PartError as error:
        raise PartError(f"arm {arm!r}, seed {seed}: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"arm {arm!r}, seed {seed}: {error}") from None


def _source(name: str, source: DonorSource, shape: Shape, training: TrainingConfig) -> Callable[[int], Donor]:
    """The donor of each seed."""
    if isinstance(source, Procedure):
        rule = source
        return lambda seed: RunConfig(rule, shape.model_for(rule), training, seed)
    if isinstance(source, str):
        return _by_name(name, source)
    if isinstance(source, (RunConfig, RunAtStep, RankedHeads, ShippedModel, ModelFile)):
        donor = source
        return lambda seed: donor
    require(callable(source), f"donors.{name}", source, "a procedure, a donor, a function of the seed, or a name")
    return source


def _by_name(name: str, source: str) -> Callable[[int], Donor]:
    from mechproc.pretrained import card, shipped

    if source in shipped():
        available = [entry["seed"] for entry in card(source)["donors"]]

        def of_seed(seed: int) -> Donor:
            allowed = f"one of {available[0]} to {available[-1]}, whose models ship"
            require(seed in available, f"seed of donors.{name}", seed, allowed)
            return ShippedModel(source, seed)

        return of_seed
    if Path(source).suffix or Path(source).exists():
        donor = ModelFile(source)
        return lambda seed: donor
    raise ConfigError(
        f"donors.{name} = {source!r} is not allowed: a rule whose pretrained models ship, or a model file"
        f"{nearest(source, shipped())} ({', '.join(shipped())})"
    )


def _shape_of(model: ModelConfig) -> Shape:
    """The shape of a model, without what belongs to its task."""
    settings = model.identifying()
    for setting in ("n_ctx", "d_vocab", "input", "d_input"):
        settings.pop(setting, None)
    return Shape(**settings)
