"""QK and OV maps on the edges of planted circuits."""

from __future__ import annotations

import numpy as np
import plotly.io as pio
import pytest

from analyses import weights
from analyses.circuit import Circuit, maps, path_map
from analyses.figures import head_map
from analyses.interventions.edges import LOGITS, Edge
from analyses.planted.family import families
from analyses.planted.planting import plant
from mechproc.errors import ConfigError, PartError


@pytest.fixture(scope="module")
def haystack():
    """A planted haystack, its previous-token head, its matching head, and the circuit of both."""
    planted = plant(families()["haystack"](n_items=16), 1)
    first, second = planted.variables
    edges = [Edge("embed", f"{first}.v"), Edge(first, f"{second}.k"), Edge("embed", f"{second}.q"),
             Edge("embed", f"{second}.v"), Edge(second, LOGITS)]  # fmt: skip
    return planted, first, second, Circuit({edge: float(n) for n, edge in enumerate(edges, 1)})


def test_the_matching_head_looks_for_the_key_and_copies_the_value(haystack):
    planted, first, second, circuit = haystack
    found = maps(planted.model, circuit)
    names = {f"{second}.QK: embed, embed > {first}", f"{second}.OV: embed"}
    assert set(found) == names
    items = planted.procedure.items(64)
    keys = np.unique(items.tokens[np.arange(64), items.n_tokens - 2])
    values = np.unique(items.tokens[np.arange(64), items.n_tokens - 1])
    match, copy = found[f"{second}.QK: embed, embed > {first}"], found[f"{second}.OV: embed"]
    assert np.array_equal(match.values[np.ix_(keys, keys)].argmax(1), np.arange(len(keys)))
    assert np.array_equal(copy.values[np.ix_(values, values)].argmax(1), np.arange(len(values)))
    written = [row for row in range(len(copy.values)) if copy.values[row].any()]
    own = np.mean([copy.values[row].argmax() == row for row in written])
    assert copy.metadata["diagonal"] == own >= len(values) / len(written)
    assert match.metadata["effects"] == {f"{first} -> {second}.k": 2.0, f"embed -> {second}.q": 3.0}


def test_maps_are_products_of_the_weights(haystack):
    planted, first, second, circuit = haystack
    found = maps(planted.model, circuit, folded=False)
    whole = weights.circuit(planted.model, f"{second}.OV", "tokens", folded=False)
    assert np.allclose(found[f"{second}.OV: embed"].values, whole.values)
    embed = planted.model.state()["embed.W_E"].double().numpy()
    ov = weights.circuit(planted.model, f"{first}.OV", "residual", folded=False).values
    qk = weights.circuit(planted.model, f"{second}.QK", "residual", folded=False).values
    expected = embed @ qk @ (embed @ ov).T
    assert np.allclose(found[f"{second}.QK: embed, embed > {first}"].values, expected)


def test_a_side_that_the_pairs_do_not_change_is_tokens_and_positions(haystack):
    planted, first, second, circuit = haystack
    (query,) = [edge for edge in circuit.edges if edge.receiver.endswith(".q")]
    found = maps(planted.model, Circuit({e: circuit.effects[e] for e in circuit.without(query)}))
    qk = {name for name in found if ".QK" in name}
    assert qk == {f"{second}.QK: {origin}, embed > {first}" for origin in ("embed", "pos")}
    by_position = found[f"{second}.QK: pos, embed > {first}"]
    assert by_position.values.shape == (planted.model.cfg.n_ctx, planted.model.cfg.d_vocab)
    assert "diagonal" not in by_position.metadata


def test_what_an_mlp_sends_has_no_map_and_a_foreign_edge_is_refused(haystack):
    planted, _, second, _ = haystack
    circuit = Circuit({Edge("embed", "L0.mlp"): 1.0, Edge("L0.mlp", f"{second}.v"): 1.0, Edge(second, LOGITS): 1.0})
    assert maps(planted.model, circuit) == {}
    with pytest.raises(PartError, match=r"'embed -> L7.H0.v' is no edge"):
        maps(planted.model, Circuit({Edge("embed", "L7.H0.v"): 1.0}))


def test_one_map_of_the_circuit_that_a_model_has(haystack):
    planted, _, second, _ = haystack
    rule, asked = planted.procedure, {"pair": "answer", "n_items": 16}
    whole = path_map(planted.model, rule, **asked)
    assert whole.metadata["maps"] and whole.name in whole.metadata["maps"]
    one = path_map(planted.model, rule, path=f"{second}.OV: embed", **asked)
    names = tuple(rule.token_names)
    assert one.coordinates == {"source": names, "output": names}
    plain = weights.circuit(planted.model, f"{second}.OV", "tokens")
    assert np.array_equal(one.values, plain.values) and one.metadata["effects"]
    assert one.metadata["pair"] == "answer" and one.metadata["n_pairs"] == 16 and one.metadata["evaluation"]
    with pytest.raises(ConfigError, match=rf"path = 'L9.H0.OV: embed' is not allowed.*{second}.OV: embed"):
        path_map(planted.model, rule, path="L9.H0.OV: embed", **asked)
    with pytest.raises(ConfigError, match="circuit"):
        path_map(planted.model, rule, threshold=1e9, **asked)


def test_a_map_is_drawn_with_names(haystack):
    planted, _, second, circuit = haystack
    found = maps(planted.model, circuit)[f"{second}.OV: embed"]
    names = [f"token {n}" for n in range(planted.model.cfg.d_vocab)]
    figure = head_map(found, names)
    heat = figure.data[0]
    assert np.allclose(np.asarray(heat.z).mean(1), 0) and heat.zmax == -heat.zmin
    assert heat.text[2][3] == "source token 2, output token 3" and pio.to_json(figure)
    assert np.array_equal(np.asarray(head_map(found, centred=False).data[0].z), found.values)
    with pytest.raises(ConfigError, match="axes"):
        head_map(found.mean("output"))
