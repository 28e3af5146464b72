"""Pictures of losses, gradients and evaluations; every value in them is computed by this library.

Each function draws into ``ax``, or into the axes of a new figure, and returns the axes. Colours are those of Okabe and
Ito, "Color Universal Design" (2008), which the colour-blind can tell apart; lines differ in their dashes, too. What the
style in use sets, such as the colours of text and background, is left alone.
"""

from ..extras import extra

with extra("plot"):
    from .curves import binary_gradient, binary_loss, descent, saturation, temperature
    from .evaluations import loss_histogram, reliability

__all__ = ["binary_gradient", "binary_loss", "descent", "loss_histogram", "reliability", "saturation", "temperature"]
