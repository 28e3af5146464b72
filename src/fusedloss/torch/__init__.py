"""The losses as PyTorch's own: the names, arguments and meanings of ``torch.nn.functional`` and ``torch.nn``.

A loss and its gradient come from one fused pass. The gradient is computed with the loss where one is wanted, and never
in the place of the input. Beyond PyTorch: losses of 16-bit inputs are float32; a target of 0 adds 0 even where the
input is −inf; what has weight 0 adds 0 whatever it holds; an error is fusedloss's typed one as well as PyTorch's.
"""

from fusedloss.extras import extra

with extra("torch"):
    from .functional import (
        binary_cross_entropy,
        binary_cross_entropy_with_logits,
        cross_entropy,
        kl_divergence,
        mse_loss,
    )
    from .modules import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "MSELoss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "kl_divergence",
    "mse_loss",
]
