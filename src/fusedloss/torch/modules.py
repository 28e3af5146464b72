"""The losses as modules: PyTorch's own, with their constructors, buffers and representations, computed here."""

import torch
from torch import Tensor

from . import functional


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss`, computed by `fusedloss.torch.cross_entropy`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits, of shape (N, C, ...) or (C,), and classes or probabilities."""
        return functional.cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class BCELoss(torch.nn.BCELoss):
    """`torch.nn.BCELoss`, computed by `fusedloss.torch.binary_cross_entropy`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of probabilities, and targets of their shape."""
        return functional.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """`torch.nn.BCEWithLogitsLoss`, computed by `fusedloss.torch.binary_cross_entropy_with_logits`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits, and targets of their shape."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class MSELoss(torch.nn.MSELoss):
    """`torch.nn.MSELoss`, computed by `fusedloss.torch.mse_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the squared error of predictions, and targets of a shape that broadcasts with theirs."""
        return functional.mse_loss(input, target, reduction=self.reduction)
