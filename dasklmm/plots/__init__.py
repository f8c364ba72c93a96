"""Plots that take and return matplotlib Axes; matplotlib is imported when one is drawn."""

from dasklmm.plots.drawing import png
from dasklmm.plots.files import save_plots, save_region
from dasklmm.plots.likelihood import h_sq_profile
from dasklmm.plots.quantiles import qq
from dasklmm.plots.region import regional
from dasklmm.plots.relatedness import kinship_heatmap, scree
from dasklmm.plots.whole_genome import manhattan

__all__ = [
    "h_sq_profile",
    "kinship_heatmap",
    "manhattan",
    "png",
    "qq",
    "regional",
    "save_plots",
    "save_region",
    "scree",
]
