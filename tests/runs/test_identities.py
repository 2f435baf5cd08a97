"""Identities of runs, as they were when the golden file was written: results are kept under them.

After an intended change of a version: ``python tests/runs/test_identities.py`` writes the file again. Any other change
orphans every run and record that exists.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from mechproc.model.config import ModelConfig
from mechproc.model.io import save_model
from mechproc.model.state import init_state
from mechproc.procedures import (
    Addition,
    Curriculum,
    Eca,
    Fixed,
    Haystack,
    Identity,
    KDyck,
    Procedure,
    Set,
    Shuffled,
    Stack,
    Uniform,
    procedures,
)
from mechproc.runs.config import RunAtStep, RunConfig
from mechproc.runs.donors import ModelFile
from mechproc.training.config import RULE, RULE_FOLLOW_UP, TASK, TrainingConfig
from mechproc.transfer import (
    Noise,
    NormMatchedNoise,
    Recipe,
    Spectrum,
    attention_only,
    body,
    composition,
    full,
    mlp_only,
    part,
    permuted,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "identities.json"


def fresh(procedure: Procedure, training: TrainingConfig = TASK, seed: int = 0, tied: bool = False) -> RunConfig:
    """A random start of the paper's shape."""
    vectors = {"input": "vectors", "d_input": procedure.n_cells} if procedure.n_cells else {}
    d_vocab = procedure.n_cells or procedure.d_vocab
    model = ModelConfig(2, 4, 16, procedure.n_ctx, d_vocab, tied_embeddings=tied, **vectors)
    return RunConfig(procedure, model, training, seed)


def examples(folder: Path) -> dict[str, RunConfig | RunAtStep]:
    """Runs of every kind of setting, by what they are an example of."""
    rules = {kind: member for kind, member in procedures().items() if kind not in ("language", "shuffled")}
    shipped = {kind: rule for kind, rule in rules.items() if rule.__module__.startswith("mechproc.")}
    runs: dict[str, RunConfig | RunAtStep] = {f"random, {kind}": fresh(rule()) for kind, rule in shipped.items()}
    haystack = fresh(Haystack(), seed=10)
    donor, other = fresh(Set(n_symbols=100), RULE, seed=10, tied=True), fresh(Eca(), RULE_FOLLOW_UP, seed=10)

    def moved(recipe: Recipe) -> RunConfig:
        donors = {"set": donor, "eca": other}
        return haystack.replace(recipe=recipe, donors={name: donors[name] for name in recipe.donor_names})

    file = folder / "donor.safetensors"
    save_model(file, donor.model, init_state(donor.model, 5))
    return runs | {
        "donor, tied": donor,
        "donor, constant rate": other,
        "seed": haystack,
        "lengths, fixed": fresh(Identity(lengths=Fixed(20))),
        "lengths, uniform": fresh(Set(lengths=Uniform(2, 12))),
        "lengths, curriculum": fresh(Stack(lengths=Curriculum(2, 20))),
        "settings of a rule": fresh(KDyck(k=64)),
        "protocol of a task": fresh(Addition(protocol="paper")),
        "shuffled data": fresh(Shuffled(procedure=Set(n_symbols=100))),
        "full": moved(full("set")),
        "full, the authors' positions": moved(full("set", positions="donor-if-whole")),
        "attention only": moved(attention_only("set")),
        "MLPs only": moved(mlp_only("set")),
        "body": moved(body("set")),
        "one circuit": moved(part("L1.H2.QK", "set")),
        "composition": moved(composition("set", "eca")),
        "permuted": moved(permuted(attention_only("set"))),
        "noise": moved(attention_only("set").replace(perturb={"attn": Noise(0.1)})),
        "noise of equal norm": moved(attention_only("set").replace(perturb={"attn": NormMatchedNoise()})),
        "spectrum kept": moved(attention_only("set").replace(perturb={"attn": Spectrum()})),
        "embeddings and LayerNorms": moved(attention_only("set").replace(embedding="mean", layernorm="donor")),
        "frozen": moved(attention_only("set").replace(freeze="attn")),
        "shared start": haystack.replace(recipe=attention_only("set"), donors={"set": donor.replace(start="haystack")}),
        "donor at a step": haystack.replace(recipe=attention_only("set"), donors={"set": RunAtStep(donor, 1000)}),
        "a run at a step": RunAtStep(donor, 1000),
        "donor from a file": haystack.replace(recipe=attention_only("set"), donors={"set": ModelFile(str(file))}),
    }


def test_identities_did_not_change(tmp_path: Path):
    golden = json.loads(GOLDEN.read_text())
    found = {name: run.identity for name, run in examples(tmp_path).items()}
    assert len(set(found.values())) == len(found), "two different runs have one identity"
    assert found.keys() == golden.keys()
    changed = [name for name in found if found[name] != golden[name]]
    assert not changed, (
        f"runs that exist are not found any more: {', '.join(changed)}. Look at a new setting that enters at its "
        "default, a changed default, and versions of procedures, model, training and recipes"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        identities = {name: run.identity for name, run in examples(Path(scratch)).items()}
    GOLDEN.write_text(json.dumps(identities, indent=1) + "\n")
