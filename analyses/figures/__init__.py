"""Figures of Results: one file for each kind of figure; each function takes a ``Result`` and returns a figure.

Every figure shows every seed, has intervals over seeds where the rows mean the same in every seed, and carries its
title, its warnings and its caption: number of seeds, kind of interval, what is not shown. A plotly figure is saved with
``figure.write_html("map.html")``, an attention view with ``view.save("view.html")``; both work without a network.
Nothing here changes a global template.
"""

from analyses.figures.ablation_map import ablation_map
from analyses.figures.arm_matrix import arm_matrix
from analyses.figures.arms import arms
from analyses.figures.attention_pattern import attention_pattern
from analyses.figures.attention_view import AttentionView, attention_view
from analyses.figures.before_after import before_after
from analyses.figures.choose import figures_of
from analyses.figures.circuit_functions import circuit_functions
from analyses.figures.circuit_graph import circuit_graph
from analyses.figures.curves import curves
from analyses.figures.dots import agreement, barriers, dots, head_groups, statistics
from analyses.figures.head_map import head_map
from analyses.figures.lens import lens
from analyses.figures.maps import maps
from analyses.figures.over_training import over_training
from analyses.figures.position_map import position_map
from analyses.figures.probe_map import probe_map
from analyses.figures.reading_map import reading_map
from analyses.figures.spectra import spectra
from analyses.figures.transferable import transferable
from analyses.figures.weight_comparison import weight_comparison, weight_words

__all__ = [
    "AttentionView",
    "ablation_map",
    "agreement",
    "arm_matrix",
    "arms",
    "attention_pattern",
    "attention_view",
    "barriers",
    "before_after",
    "circuit_functions",
    "circuit_graph",
    "curves",
    "dots",
    "figures_of",
    "head_groups",
    "head_map",
    "lens",
    "maps",
    "over_training",
    "position_map",
    "probe_map",
    "reading_map",
    "spectra",
    "statistics",
    "transferable",
    "weight_comparison",
    "weight_words",
]
