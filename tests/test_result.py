from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mechproc.errors import ConfigError, StoreError
from mechproc.result import Result, align, stack
from mechproc.result.references import reference_scores

NAN = float("nan")


def make(**changes) -> Result:
    """Two parts, three seeds, two items; ``L0.mlp`` under seed 2 is missing, ``pos`` is undefined."""
    values = np.arange(18, dtype=float).reshape(3, 3, 2)
    values[1, 2] = NAN
    values[2] = NAN
    settings = {
        "name": "accuracy lost",
        "values": values,
        "axes": ("part", "seed", "item"),
        "coordinates": {"part": ["L0.H0", "L0.mlp", "pos"], "seed": [0, 1, 2], "item": ["a", "b"]},
        "unit": "fraction",
        "direction": "positive: the ablation hurts",
        "what_it_does_not_show": "what the part does",
        "undefined": [({"part": "pos"}, "positions have no mean")],
        "metadata": {"ablation": "mean"},
        "provenance": [
            ({"seed": 0}, {"device": "cpu"}),
            ({"seed": 1}, {"device": "cpu"}),
            ({"seed": 2}, {"device": "gpu"}),
        ],
    }
    return Result(**(settings | changes))


def test_select_by_label_drops_the_axis_for_one_label_and_keeps_it_for_a_list():
    one = make().select(part="L0.mlp", item="b")
    assert one.axes == ("seed",)
    np.testing.assert_array_equal(one.values, [7.0, 9.0, NAN])
    several = make().select(seed=[2, 0], item="a")
    assert several.axes == ("part", "seed")
    assert several.coordinates["seed"] == (2, 0)
    np.testing.assert_array_equal(several.values[0], [4.0, 0.0])


def test_what_is_known_of_cells_follows_them():
    kept = make().select(part=["pos", "L0.H0"], seed=1)
    assert kept.undefined == (({"part": "pos"}, "positions have no mean"),)
    assert kept.provenance == (({}, {"device": "cpu"}),)
    assert make().select(part="L0.H0").undefined == ()
    assert make().select(part="pos").undefined == (({}, "positions have no mean"),)


def test_mean_is_missing_or_undefined_where_a_cell_under_it_is():
    mean = make().mean("item", "seed")
    np.testing.assert_array_equal(mean.values, [2.5, NAN, NAN])
    assert mean.is_missing.tolist() == [False, True, False]
    assert mean.is_undefined.tolist() == [False, False, True]
    over_parts = make().select(seed=0).mean("part")
    assert over_parts.is_undefined.all()
    # two seeds on the same device are one environment, the third another
    assert mean.provenance == (({}, {"device": "cpu"}), ({}, {"device": "gpu"}))


def test_table_is_tidy_and_tells_undefined_from_missing():
    table = make().table()
    assert list(table.columns) == ["part", "seed", "item", "value", "note"]
    assert len(table) == 18
    row = table[(table.part == "L0.mlp") & (table.seed == 1) & (table.item == "b")]
    assert row.value.tolist() == [9.0]
    assert row.note.tolist() == [""]
    assert set(table[table.part == "pos"].note) == {"undefined: positions have no mean"}
    assert set(table[(table.part == "L0.mlp") & (table.seed == 2)].note) == {"missing"}
    assert len(make().select(part="L0.H0", seed=0, item="a").table()) == 1


def test_printing_names_cells_without_a_number():
    text = str(make())
    assert "accuracy lost [fraction]: 3 part x 3 seed x 2 item" in text
    assert "positive: the ablation hurts" in text
    assert text.count("undefined") == 6 + 1 and text.count("missing") == 2
    assert "part pos undefined: positions have no mean" in text.splitlines()
    assert "nan" not in text.lower()
    assert "Does not show: what the part does" in text
    assert make().texts(".1f")[0, 0].tolist() == ["0.0", "1.0"]


def test_a_repr_is_one_line_without_the_numbers():
    result = make()
    sizes = " x ".join(f"{len(result.coordinates[axis])} {axis}" for axis in result.axes)
    assert repr([result]) == f"[<Result: {result.name} [{result.unit}]: {sizes}>]"


def test_select_remembers_which_labels_it_dropped():
    one = make().select(item="b", seed=np.int64(1))
    assert one.selected == {"item": "b", "seed": 1}
    assert one.title == "accuracy lost (item b, seed 1)"
    assert make().select(item=["b"]).title == make().title == "accuracy lost"
    assert Result.from_json(one.to_json()) == one
    assert stack({item: make().select(item=item) for item in "ab"}, "item").selected == {}
    assert stack({item: make().select(item=item, seed=0) for item in "ab"}, "item").selected == {"seed": 0}


def test_select_finds_the_metadata_that_stack_kept_apart():
    first, second = make().select(seed=0), make(metadata={"ablation": "zero"}).select(seed=1)
    stacked = stack({"x": first, "y": second}, "arm")
    assert stacked.select(arm="y").metadata == {"ablation": "zero"}
    assert stacked.select(arm=["y"]).metadata == stacked.metadata
    assert stacked.metadata == {"arm": {"x": {"ablation": "mean"}, "y": {"ablation": "zero"}}}
    assert make(metadata={"item": {"a": 1, "b": 2}}).select(item="a").metadata == {"item": {"a": 1, "b": 2}}


def test_stack_keeps_what_all_share_and_every_warning():
    known = {"intact": {"0": 0.5}, "metric": "accuracy"}
    first = make(metadata={**known, "n": 1, "warnings": ["below its baseline"]}).select(seed=0)
    second = make(metadata={**known, "n": 2}).select(seed=0)
    stacked = stack({"x": first, "y": second}, "arm")
    assert stacked.warnings == ["below its baseline"] and "Intact accuracy 50.0 %." in str(stacked).splitlines()
    assert stacked.select(arm="x").metadata == first.metadata
    assert stacked.select(arm="y").metadata == {**second.metadata, "warnings": []}


def test_labels_are_held_against_scores_of_their_own():
    low, high = (make(metadata={"intact": {"0": of}, "ceiling": 1.0}).select(seed=0) for of in (0.5, 0.75))
    assert reference_scores(stack({"x": low, "y": high}, "arm")) == [
        "x: Intact accuracy 50.0 %; best attainable 100.0 %.",
        "y: Intact accuracy 75.0 %; best attainable 100.0 %.",
    ]


class Html(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        if self.tags and self.tags[-1] in ("td", "th"):
            self.rows[-1].append(data)
        self.text.append(data)


def test_a_notebook_shows_a_table_with_unit_direction_and_limits():
    hostile = "<img src=x>"
    warned = make(
        metadata={"warnings": [f"no model {hostile} beats its baseline"]},
        coordinates=make().coordinates | {"item": ["a", hostile]},
    )
    page = Html(warned._repr_html_())
    text = "".join(page.text)
    for part in ("accuracy lost [fraction]: 3 part x 3 seed x 2 item", "positive: the ablation hurts",
                 f"no model {hostile} beats its baseline", "Does not show: what the part does",
                 "part pos undefined: positions have no mean"):  # fmt: skip
        assert part in text
    assert page.tags.count("img") == 0
    assert page.rows[0] == ["part", "item", "seed 0", "seed 1", "seed 2"]
    assert page.rows[1] == ["L0.H0", "a", "0", "2", "4"]
    assert page.rows[4] == ["L0.mlp", hostile, "7", "9", "missing"]
    assert page.rows[5] == ["pos", "a", "undefined", "undefined", "undefined"]
    assert len(page.rows) == 1 + 3 * 2


def test_a_notebook_shows_results_of_any_shape():
    number = Html(make().select(part="L0.H0", seed=1, item="b")._repr_html_())
    assert number.rows == [["value"], ["3"]]
    row = Html(make().select(part="L0.H0", item="b")._repr_html_())
    assert row.rows == [["seed 0", "seed 1", "seed 2"], ["1", "3", "5"]]
    wide = make().select(seed=0)
    assert Html(wide._repr_html_()).rows[0] == ["part", "item a", "item b"]
    beside = Result("a", np.zeros((3, 50)), ("x", "y"), {"x": [0, 1, 2], "y": list(range(50))}, "u", "d", "w")
    page = Html(beside._repr_html_())
    assert page.rows[0] == ["y", "x 0", "x 1", "x 2"] and len(page.rows) == 41
    assert "10 more rows are not shown." in page.text
    labels = list(range(20))
    page = Html(Result("a", np.zeros((20, 20)), ("x", "y"), {"x": labels, "y": labels}, "u", "d", "w")._repr_html_())
    assert page.rows[0] == ["x", "y", "value"] and "360 more rows are not shown." in page.text


def test_cells_of_one_reason_stand_together_and_many_reasons_are_folded():
    twice = [({"part": "L0.mlp"}, "no <mean>"), ({"part": "pos"}, "no <mean>")]
    values = make().values.copy()
    values[1] = np.nan
    page = make(values=values, undefined=twice)._repr_html_()
    assert "part L0.mlp; part pos undefined: no <mean>" in str(make(values=values, undefined=twice)).splitlines()
    assert "<p>part L0.mlp; part pos undefined: no &lt;mean&gt;</p>" in page and "<details>" not in page
    each = [({"part": "pos", "seed": s, "item": i}, f"reason {s}{i}") for s in (0, 1, 2) for i in ("a", "b")]
    page = make(undefined=each)._repr_html_()
    assert "Undefined for 6 reasons: see the notes of table()" in str(make(undefined=each)).splitlines()
    assert (
        "<details><summary>Why cells are undefined: 6 reasons</summary>" in page
        and page.count("undefined: reason") == 6
    )


def test_values_stand_beside_what_they_are_held_against():
    known = {"intact": {"0": 0.9, "1": 0.8}, "ceiling": 1.0, "baselines": {"<last>": 0.25, "first": 0.1}}
    sentence = "Intact accuracy 80.0 % to 90.0 %; best attainable 100.0 %; best baseline 25.0 % (<last>)."
    assert sentence in str(make(metadata=known)).splitlines()
    page = Html(make(metadata=known)._repr_html_())
    assert sentence in "".join(page.text) and "last" not in page.tags
    by_item = make(metadata={"baselines": {"a": {"uniform": 0.2}, "b": {"uniform": 0.4}, "settings": {"x": "y"}}})
    assert "A: uniform 20.0 %; b: uniform 40.0 %." in str(by_item).splitlines()
    assert "B: uniform 40.0 %." in str(by_item.select(item="b")).splitlines()
    assert reference_scores(make()) == reference_scores(make(metadata={"baselines": {"a": "b"}})) == []


def test_warnings_are_printed_before_the_values():
    lines = str(make(metadata={"warnings": ["no donor beats its baseline"]})).splitlines()
    assert lines[1] == "Warning: no donor beats its baseline"


def test_long_tables_are_cut_and_say_so():
    long = make(values=np.zeros((3, 3, 20)), undefined=(), coordinates=make().coordinates | {"item": list(range(20))})
    text = str(long).splitlines()
    assert text[2].split() == ["part", "item", *(word for seed in range(3) for word in ("seed", str(seed)))]
    assert text[-2] == "... and 20 more rows"


def test_a_long_table_leaves_out_what_has_nothing_to_read():
    values = np.zeros((3, 3, 20))
    values[:, :, 5], values[1, 1, 6] = np.nan, 0.5
    ended = [({"item": 5}, "the item has ended")]
    long = make(values=values, undefined=ended, coordinates=make().coordinates | {"item": list(range(20))})
    text = str(long)
    assert "... and 17 more rows" in text and "3 rows without a value are left out." in text
    sparse = dataclasses.replace(long, metadata={"zero": "not in the circuit", "sentences": ["One cell counts."]})
    lines = str(sparse).splitlines()
    assert lines[3].split() == ["L0.mlp", "6", "0", "0.5", "0"]
    assert lines[4:6] == ["59 rows without a value or a value other than 0 (not in the circuit) are left out.",
                          "item 5 undefined: the item has ended"]  # fmt: skip
    assert lines[6] == "One cell counts." and "One cell counts." in sparse._repr_html_()


def test_the_scores_of_two_runs_are_what_an_exchange_is_held_against():
    ends = {"metric": "logit_diff", "clean": {"0": 3.0, "1": 4.5}, "corrupt": {"0": -2.0, "1": -2.0}}
    told = reference_scores(make(metadata=ends, unit="logits (recovery: fraction)"))
    assert told == [
        "Logit difference of the clean run 3 logits to 4.5 logits; logit difference of the corrupt run -2 logits."
    ]
    unnamed = reference_scores(make(metadata={"clean": {"0": 3.0}}, unit="logits"))
    assert unnamed == ["Score of the clean run 3 logits."]


def test_values_are_a_read_only_copy():
    values = np.zeros((3, 3, 2))
    result = make(values=values, undefined=())
    values[0] = 1.0
    assert result.values.sum() == 0.0
    with pytest.raises(ValueError, match="read-only"):
        result.values[0] = 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.zeros((3, 2, 2))}, "shape of values = (3, 2, 2) is not allowed: (3, 3, 2)"),
        ({"coordinates": {"part": ["x", "x", "y"], "seed": [0, 1, 2], "item": ["a", "b"]}}, "labels of part = 'x'"),
        ({"coordinates": {"part": ["x", "y", "z"], "seed": [0, 1, 2]}}, "coordinates = ['part', 'seed']"),
        ({"coordinates": {"part": "xyz", "seed": [0, 1, 2], "item": ["a", "b"]}}, "a list of labels"),
        ({"coordinates": {"part": [None, 1, 2], "seed": [0, 1, 2], "item": ["a", "b"]}}, "labels of part = None"),
        ({"coordinates": {"part": [True, 3, 2], "seed": [0, 1, 2], "item": ["a", "b"]}}, "labels of part = True"),
        ({"axes": ("part", "part", "item")}, "names that differ"),
        ({"axes": ("part", "value", "item")}, "the table's own"),
        ({"values": np.full((3, 3, 2), np.inf)}, "values = 'infinity'"),
        ({"undefined": [({"part": "L0.H0"}, "no reason at all")]}, "cells that are all NaN"),
        ({"undefined": [({"part": "pos"}, "")]}, "reason = ''"),
        ({"undefined": [({"part": "poss"}, "typo")]}, "did you mean 'pos'?"),
        ({"provenance": [({"seed": 0}, {"device": "cpu"})]}, "cover every measured cell"),
        ({"metadata": {"array": np.zeros(2)}}, "must be plain JSON"),
        ({"unit": " "}, "unit = ' '"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(**changes)


def test_unknown_axes_and_labels_name_the_nearest():
    with pytest.raises(ConfigError, match=r"axis 'pat' .* one of part, seed, item; did you mean 'part'\?"):
        make().select(pat="L0.H0")
    with pytest.raises(ConfigError, match=r"part 'L0.mpl' is not in 'accuracy lost'; did you mean 'L0.mlp'\?"):
        make().select(part="L0.mpl")
    with pytest.raises(ConfigError, match="seed 7"):
        make().select(seed=[0, 7])
    with pytest.raises(ConfigError, match="axis 'layer'"):
        make().mean("layer")


def test_numpy_labels_become_plain_and_are_found():
    result = make(coordinates=make().coordinates | {"seed": np.arange(3)})
    assert [type(label) for label in result.coordinates["seed"]] == [int, int, int]
    assert result == make()
    assert result.select(seed=np.int64(1)) == make().select(seed=1)


def test_files_bring_back_every_bit(tmp_path):
    result = make()
    awkward = result.values.copy()
    awkward[0, 0] = [0.1 + 0.2, 5e-324]
    result = make(values=awkward)
    result.save(tmp_path / "result.json")
    again = Result.load(tmp_path / "result.json")
    assert again == result
    assert again.values[0, 0, 0] == 0.30000000000000004 and again.values[0, 0, 1] == 5e-324
    assert (again.undefined, again.provenance) == (result.undefined, result.provenance)
    json.loads((tmp_path / "result.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))


def test_a_full_disk_leaves_the_file_of_before(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    make().save(path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="cannot be written: No space left"):
        make(metadata={}).save(path)
    assert Result.load(path) == make() and [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_single_number_has_no_axes_and_survives_a_file():
    number = make().select(part="L0.H0", seed=1, item="b")
    assert number.axes == () and float(number.values) == 3.0
    assert Result.from_json(number.to_json()) == number
    assert "one number" in str(number)


@pytest.mark.parametrize(
    "changes",
    [
        {"values": make().values + 1},
        {"unit": "nats"},
        {"metadata": {}},
        {"undefined": ()},
        {"provenance": ()},
        {"selected": {"arm": "x"}},
    ],
)
def test_results_that_differ_in_anything_are_not_equal(changes):
    assert make(**changes) != make()
    assert make() == make()


def broken(**changes) -> str:
    return json.dumps(json.loads(make().to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not hold a Result"),
        ("[1, 2]", "its format is not"),
        (broken(format="mechproc.result.9"), "its format is not"),
        (broken(extra=1, format="mechproc.result.1", checksum=None), "extra"),
        (broken(extra=1), "checksum"),
        (broken(values=[[1.0], [2.0, 3.0]]), "does not hold a Result"),
        (broken(axes=3), "does not hold a Result"),
        (broken(coordinates=[]), "does not hold a Result"),
        (broken(undefined=[1]), "does not hold a Result"),
        (broken(provenance=[[{}, 3]]), "does not hold a Result"),
        (make().to_json().replace("null", "NaN"), "NaN is not a number that JSON can hold"),
        ("[" * 100_000, "does not hold a Result"),
    ],
)
def test_files_that_hold_something_else_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=message) as error:
        Result.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_opened_say_so(tmp_path):
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        Result.load(tmp_path / "none.json")
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        make().save(tmp_path / "none" / "result.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StoreError, match="it is not text"):
        Result.load(tmp_path / "bytes")


def test_align_lays_two_maps_beside_each_other():
    first = make().select(seed=0, item="a")
    second = make(
        values=[10.0, 20.0],
        axes=("part",),
        coordinates={"part": ["L1.H0", "L0.mlp"]},
        undefined=(),
        provenance=(),
    )
    one, other = align(first, second, "part")
    assert one.coordinates["part"] == other.coordinates["part"] == ("L0.H0", "L0.mlp", "pos", "L1.H0")
    np.testing.assert_array_equal(one.values, [0.0, 6.0, NAN, NAN])
    np.testing.assert_array_equal(other.values, [NAN, 20.0, NAN, 10.0])
    # a cell that nobody measured is missing; a cell that means nothing stays undefined
    assert one.texts()[2:].tolist() == ["undefined", "missing"]
    assert other.texts()[2] == "missing"
    one, other = align(first, second, "part", how="shared")
    assert one.values.tolist() == [6.0] and other.values.tolist() == [20.0]
    with pytest.raises(ConfigError, match="share no part"):
        align(first, make().select(part=["pos"]).reindex("part", ["pos", "x"]).select(part=["x"]), "part")
    with pytest.raises(ConfigError, match="how = 'inner'"):
        align(first, second, "part", how="inner")  # type: ignore[arg-type]


def test_reindex_keeps_other_axes_and_refuses_to_make_an_empty_map():
    moved = make().reindex("seed", [2, 9, 0])
    np.testing.assert_array_equal(moved.values[0], [[4.0, 5.0], [NAN, NAN], [0.0, 1.0]])
    assert moved.is_missing[0].tolist() == [[False, False], [True, True], [False, False]]
    with pytest.raises(ConfigError, match="no seed of 'accuracy lost' is among"):
        make().reindex("seed", [7, 8])


def test_stack_joins_the_results_of_several_seeds():
    by_seed = {seed: make().select(seed=seed) for seed in (0, 1, 2)}
    stacked = stack(by_seed, "seed")
    assert stacked.axes == ("seed", "part", "item")
    np.testing.assert_array_equal(stacked.values, np.moveaxis(make().values, 1, 0))
    assert stacked.is_undefined.sum() == 6
    assert stacked.select(seed=2).provenance == (({}, {"device": "gpu"}),)
    assert stacked.metadata == {"ablation": "mean"}


def test_stack_keeps_metadata_apart_and_drops_provenance_that_is_known_in_part():
    first = make().select(seed=0)
    second = make(metadata={"ablation": "zero"}, provenance=()).select(seed=1)
    stacked = stack({"x": first, "y": second}, "arm")
    assert stacked.metadata == {"arm": {"x": {"ablation": "mean"}, "y": {"ablation": "zero"}}}
    assert stacked.provenance == ()
    with pytest.raises(ConfigError, match="unit of arm y = 'nats'"):
        stack({"x": first, "y": make(unit="nats").select(seed=0)}, "arm")
    with pytest.raises(ConfigError, match="axis = 'part'"):
        stack({"x": first}, "part")
