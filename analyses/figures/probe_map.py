"""Where latents are readable, or used: latents by sites, as colours and numbers."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import SEQUENTIAL, blank, escaped, label_width, tick_labels
from mechproc.errors import require
from mechproc.result import Result
from mechproc.statistics.intervals import same_in_every_seed


def probe_map(probed: Result, quantity: str, baseline: str | None = None) -> go.Figure:
    """One quantity of ``analyses.probing`` for each latent at each site, the mean over seeds.

    ``probed`` is what ``probing.run`` or ``probing.causal_effect`` returns, ``quantity`` one of its labels; with
    ``baseline``, another of its labels, the difference of the two is drawn. A head's index means nothing across seeds:
    the heads of a layer are one column, the highest of them in each seed, which favours heads over other sites.
    Hovering shows the lowest and the highest seed. Errors: ``ConfigError`` for a quantity that is not there.
    """
    probed = with_axes(probed, "quantity", "latent", "site", "seed")
    scores = probed.select(quantity=quantity)
    values = scores.values
    if baseline is not None:
        values = values - probed.select(quantity=baseline).values
    require(bool(np.isfinite(values).any()), "quantity", quantity, "one that is defined for a latent at least")
    columns = _columns([str(site) for site in probed.coordinates["site"]])
    columns_of_seeds = np.stack([values[:, members].max(axis=1) for members in columns.values()], axis=1)
    means = columns_of_seeds.mean(axis=2)
    latents = [str(latent) for latent in probed.coordinates["latent"]]
    seeds = probed.coordinates["seed"]
    what = quantity if baseline is None else f"{quantity} less {baseline}"
    hover = [
        [
            escaped(f"{latent} at {site}: {means[i, j]:.3f}, seeds {each.min():.3f} to {each.max():.3f}")
            for j, (site, each) in enumerate(zip(columns, row, strict=True))
        ]
        for i, (latent, row) in enumerate(zip(latents, columns_of_seeds, strict=True))
    ]
    figure = blank()
    low = min(0.0, float(np.nanmin(means)))
    high = max(float(np.nanmax(means)), 1.0 if probed.unit == "fraction" and baseline is None else 0.0) or 1.0
    figure.add_heatmap(
        z=means, text=hover, hovertemplate="%{text}<extra></extra>", zmin=low, zmax=high, colorscale=SEQUENTIAL,
        xgap=1.5, ygap=1.5, showscale=False, meta={"subjects": [list(columns)] * len(latents)},
        customdata=[["undefined" if np.isnan(mean) else f"{round(mean, 2) + 0.0:.2f}" for mean in row]
                    for row in means.tolist()],
        texttemplate="%{customdata}", textfont={"size": 11},
    )  # fmt: skip
    figure.update_xaxes(
        title="site, in the order of the forward pass", tickvals=list(range(len(columns))),
        ticktext=tick_labels(list(columns)), showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(latents))), ticktext=tick_labels(latents), range=[len(latents) - 0.5, -0.5],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    unit = f"{probed.unit[0].upper()}{probed.unit[1:]}"
    sentences = [f"{unit}, mean over {len(seeds)} seeds." if len(seeds) > 1 else f"{unit}, one seed."]
    described = probed.metadata.get("quantities", {})
    sentences += [f"{name}: {described[name]}." for name in (quantity, baseline) if name in described]
    if any(len(members) > 1 for members in columns.values()):
        sentences.append("Of the heads of a layer the highest in each seed, a maximum.")
    reasons = dict.fromkeys(reason for _, reason in scores.undefined)
    sentences += [f"Undefined: {reason.rstrip('.')}." for reason in reasons]
    title = f"{probed.title}: {what}"
    height = 70 + 44 * len(latents)
    return finish(figure, scores, sentences, plot_height=height, left=label_width(latents), below=110, title=title)


def _columns(sites: list[str]) -> dict[str, list[int]]:
    """The sites of each column: all heads of a layer together, in the place of the first."""
    columns: dict[str, list[int]] = {}
    for number, site in enumerate(sites):
        label = site if same_in_every_seed(site) else f"{site.split('.')[0]} best head"
        columns.setdefault(label, []).append(number)
    return columns
