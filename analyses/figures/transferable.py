"""When the probes of the search crossed, against how long their donors were trained."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import COLOURS, GREY, blank, escaped
from mechproc.result import Result

JITTER = 0.03
"""Share of a decade by which donors stand beside each other."""


def transferable(crossings: Result) -> go.Figure:
    """Each donor is a line: the crossing of its probes by its own number of updates, coloured by its rule.

    ``crossings`` has the axes ``donor`` and ``donor_steps``; ``metadata["rule"]`` names the rule of each donor and
    ``metadata["budget"]`` is where a probe that did not cross stands, on the dotted line.
    """
    crossings = with_axes(crossings, "donor", "donor_steps")
    rules, budget = crossings.metadata["rule"], float(crossings.metadata["budget"])
    colours = dict(zip(dict.fromkeys(rules.values()), COLOURS, strict=False))
    steps = np.array(crossings.coordinates["donor_steps"], dtype=float)
    figure = blank()
    shown: set[str] = set()
    for number, (donor, values) in enumerate(zip(crossings.coordinates["donor"], crossings.values, strict=True)):
        rule = rules[str(donor)]
        offset = JITTER * (((number * 0.618) % 1) - 0.5)
        figure.add_scatter(
            x=steps * 10**offset, y=values, mode="lines+markers", name=escaped(rule), legendgroup=rule,
            showlegend=rule not in shown, line={"color": colours[rule], "width": 1}, opacity=0.8,
            marker={"size": 7, "color": colours[rule]}, text=[escaped(str(donor))] * len(steps),
            hovertemplate="%{text}: %{y:,.0f}<extra></extra>",
        )  # fmt: skip
        shown.add(rule)
    figure.add_hline(budget, line={"color": GREY, "width": 1.2, "dash": "dot"}, annotation_text="did not cross")
    figure.update_xaxes(
        title="updates of the donor", type="log", tickvals=steps.tolist(), ticktext=[f"{n:,.0f}" for n in steps]
    )
    figure.update_yaxes(title=escaped(f"{crossings.name} ({crossings.unit})"), range=[0, budget * 1.06])
    figure.update_layout(showlegend=True)
    n = len(crossings.coordinates["donor"])
    sentences = [f"{n} donors, each a line through its checkpoints; a dot that is missing was not run."]
    sentences.append("The level of no donor is that of the dotted line where random starts do not cross.")
    return finish(figure, crossings, sentences, plot_height=380, above=24)
