"""Analyses by name: computed once, read afterwards, computed anew when what was asked or the code differs."""

import dataclasses
from pathlib import Path

import pytest

from analyses import ANALYSES, ablation, kept, registry
from analyses.kept import analyse
from mechproc import load_pretrained, save_model
from mechproc.errors import ConfigError
from mechproc.pretrained import pretrained_weights
from mechproc.procedures import get
from mechproc.result import Result
from mechproc.runs.store import Store
from mechproc.studies.registry import load

RECORDS = Path(__file__).parents[2] / "results" / "records"
FEW = {"n_items": 20, "parts": ["L0.H0", "L1.mlp"]}


def asked(folder, names=("sort:0..1",), **settings):
    return analyse("ablation", names, folder=folder, **{**FEW, **settings})


def test_a_result_is_that_of_the_function_and_is_kept(tmp_path):
    (first,) = asked(tmp_path)
    direct = ablation.run({s: load_pretrained("sort", s) for s in range(2)}, get("sort")(), **FEW)
    assert first.seconds is not None and first.path.parent == tmp_path / "ablation"
    assert (first.result.values == direct.values).all() and first.result.coordinates == direct.coordinates
    request = first.result.metadata["request"]
    assert request["command"] == "mechproc analyse ablation sort:0..1 --n-items 20 --parts L0.H0 L1.mlp"
    assert set(request["models"]["sort"]) == {"0", "1"} and request["settings"] == FEW
    (again,) = asked(tmp_path)
    assert again.seconds is None and again.result == first.result == Result.load(first.path)
    assert asked(tmp_path, again=True)[0].seconds is not None


def test_every_number_that_counts_something_has_a_limit(tmp_path):
    numbers = {o.name for name in ANALYSES for o in registry.signature(name).options if o.kind is int and not o.many}
    assert numbers == set(kept.MOST)
    with pytest.raises(ConfigError, match="n_items = 1000000 is not allowed: at most 20,000"):
        asked(tmp_path, n_items=1_000_000)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lengths": {"kind": "fixed", "length": 1_000_000}}, "longest item of sort = 2000001 is not allowed: at most"),
        ({"n_symbols": 1_000_000}, "tokens of sort = .* is not allowed: at most .*, which these models know"),
    ],
)
def test_items_that_the_models_cannot_read_are_not_drawn(tmp_path, monkeypatch, settings, said):
    rule = get("sort").from_dict(settings)
    monkeypatch.setattr(type(rule), "items", lambda *_, **__: pytest.fail("items were drawn"))
    with pytest.raises(ConfigError, match=said):
        asked(tmp_path, procedure=rule)


def test_other_models_rules_and_settings_are_other_files(tmp_path):
    paths = {asked(tmp_path)[0].path}
    paths |= {asked(tmp_path, names=["sort:0..2"])[0].path, asked(tmp_path, ablation="mean")[0].path}
    paths.add(asked(tmp_path, procedure=get("sort").from_dict({"n_symbols": 10}))[0].path)
    assert len(paths) == 4
    assert asked(tmp_path, ablation="zero")[0].path in paths and len(list(tmp_path.rglob("*.json"))) == 4


def test_the_same_weights_in_a_file_are_the_same_models(tmp_path):
    file = save_model(tmp_path / "mine.safetensors", *pretrained_weights("sort", 0))
    (mine,) = asked(tmp_path, names=[str(file)], procedure=get("sort")())
    (ours,) = asked(tmp_path, names=["sort:0"])
    digest = mine.result.metadata["request"]["models"]["files"]["mine"]
    assert digest == ours.result.metadata["request"]["models"]["sort"]["0"]


def test_other_code_or_a_damaged_file_is_computed_anew(tmp_path, monkeypatch):
    (first,) = asked(tmp_path)
    first.path.write_text("{")
    assert asked(tmp_path)[0].seconds is not None
    monkeypatch.setattr(kept, "sources", lambda name: {"analyses.ablation": "other"})
    assert asked(tmp_path)[0].seconds is not None
    assert asked(tmp_path)[0].seconds is None


def test_groups_have_results_of_their_own_or_one_together(tmp_path, monkeypatch):
    results = asked(tmp_path, names=["sort:0", "reverse:0"])
    assert [one.title for one in results] == ["sort", "reverse"]
    seen = []

    def compare(models, **settings):
        seen.append({name: sorted(of_seed) for name, of_seed in models.items()})
        return results[0].result

    called = registry.signature("ablation")
    for takes in ({"groups"}, {"groups", "seeds"}):
        changed = dataclasses.replace(called, takes=frozenset(takes), procedure=None, needs_procedure=False)
        monkeypatch.setattr(kept, "signature", lambda name, changed=changed: changed)
        monkeypatch.setattr(kept, "function", lambda name: compare)
        (both,) = asked(tmp_path, names=["sort:0", "reverse:0"], again=True)
        assert both.title == "sort, reverse" and seen.pop() == {"sort": [0], "reverse": [0]}


def test_an_analysis_of_one_model_is_stacked_over_seeds(tmp_path, monkeypatch):
    called = registry.signature("ablation")
    changed = dataclasses.replace(called, takes=frozenset({"one"}), models="model")
    monkeypatch.setattr(kept, "signature", lambda name: changed)
    monkeypatch.setattr(
        kept, "function", lambda name: lambda model, **given: ablation.run([model], **given).select(seed=0)
    )
    (one,) = asked(tmp_path)
    assert one.result.axes == ("seed", "part") and list(one.result.coordinates["seed"]) == [0, 1]


def test_mistakes_are_said_before_anything_is_computed(tmp_path):
    with pytest.raises(ConfigError, match=r"ablatio is not a setting of ablation.*did you mean 'ablation'"):
        asked(tmp_path, ablatio="mean")
    file = save_model(tmp_path / "mine.safetensors", *pretrained_weights("sort", 0))
    with pytest.raises(ConfigError, match="procedure of files = None"):
        asked(tmp_path, names=[str(file)])
    assert "attention" in ANALYSES and not (tmp_path / "ablation").exists()


def test_each_group_is_given_its_rule(tmp_path):
    names = ["sort:0", "reverse:0"]
    (found,) = analyse("attention-compare", names, folder=tmp_path, targets=["copies"], n_items=8, n_untrained=1)
    assert found.result.select(mask="copies", group="reverse").is_undefined.all()
    assert found.result.select(mask="copies", group="sort", rank=1, seed=0).values > 0
    kinds = [rule["kind"] for rule in found.result.metadata["request"]["procedure"]]
    assert kinds == ["sort", "reverse"]


class TestOfAStudy:
    """On the records of one seed that come along; nothing is trained."""

    @staticmethod
    def asked(folder, name="transfer-map", store=None, **settings):
        store = store or Store("none", RECORDS)
        return analyse(name, ["transfer-map"], folder=folder, store=store, scale="laptop", n_seeds=2, **settings)[0]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def of_one_rule(cls):
        """The study with the arms of set alone, and one seed that no record is of; made once."""
        whole = load("transfer-map", "laptop", 11)
        runs = [(arm, run) for arm, run in whole.runs if ": k-dyck" not in arm and run.seed in (10, 20)]
        study = dataclasses.replace(whole, runs=runs, families=(), claims=())
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(kept, "load", lambda *_: study)
            yield

    def test_what_is_not_complete_is_said(self, tmp_path):
        found = self.asked(tmp_path)
        assert found.missing == (20,) and "seeds 20 have none" in found.result.warnings[0]
        assert found.result.select(map="shapley", seed=10).values.sum() == pytest.approx(
            found.result.metadata["gain"]["10"]
        )
        request = found.result.metadata["request"]
        assert request["command"] == "mechproc analyse transfer-map transfer-map --scale laptop --seeds 2"
        assert set(request["models"]["transfer map (laptop)"]) == {"10"}
        assert self.asked(tmp_path).seconds is None

    def test_further_runs_are_another_file(self, tmp_path, monkeypatch):
        first = self.asked(tmp_path)
        other = {"accuracy": 1.0, "steps": 1, "ceiling": 1.0, "baselines": {"none": 0.5}}
        monkeypatch.setattr(Store, "test", lambda store, run: other)
        assert self.asked(tmp_path).path != first.path

    def test_refusals(self, tmp_path):
        with pytest.raises(ConfigError, match="complete run in none; mechproc study run transfer-map --scale=laptop"):
            self.asked(tmp_path, store=Store("none"))
        with pytest.raises(ConfigError, match=r"procedure.*the runs of a study have their own"):
            self.asked(tmp_path, procedure=get("sort")())
        with pytest.raises(ConfigError, match="target = 'shapely'"):
            self.asked(tmp_path, "agreement", target="shapely")

    def test_agreement_without_weights_of_donors(self, tmp_path):
        found = self.asked(tmp_path, "agreement", target="alone").result
        assert found.select(map="shapley", case="set, haystack").values > 0.5
        assert found.select(map="probing").is_missing.all()
        assert "set: the weights of 2 of 2 donors are not here, so that no map of donors counts" in found.warnings
