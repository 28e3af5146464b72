"""What all pictures share: where they are drawn, and in which colours."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ..errors import OptionError

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#808080"


def axes(ax: Axes | None) -> Axes:
    """Give the caller's axes, or those of a new figure, whose labels all fit in."""
    if ax is None:
        return plt.figure(layout="constrained").add_subplot()
    if not isinstance(ax, Axes):
        raise OptionError(f"ax is of type {type(ax).__name__}, expected matplotlib's Axes")
    return ax
