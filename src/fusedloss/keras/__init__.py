"""Losses for Keras 3, under Keras's names, constructors and meanings: for ``model.compile(loss=…)``, and by themselves.

They work on the torch, jax and tensorflow backends, on the CPU. Reductions, sample weights, masks and dtypes are
Keras's own; the loss and its gradient are fused. Keras's ``y_true`` is a constant to them.

They give the values that Keras's losses give on the same backend, with these exceptions:

- What Keras does in silence raises an error: a class out of range, on the jax backend; a probability outside [0, 1],
  which Keras clips; a ``SparseCategoricalCrossentropy`` of a dtype that cannot tell the classes apart.
- ``SparseCategoricalCrossentropy`` takes any axis on every backend, and its configuration keeps it.
- Label smoothing of ``CategoricalCrossentropy`` spreads over the classes, also where they are not the last axis.

On tensorflow, XLA cannot call out of the programs it compiles. Where a model is compiled with ``jit_compile=True``, as
Keras does by default only where there are other devices than CPUs, a warning says so, and Keras's own operations
compute the loss.
"""

from ..extras import extra

with extra("keras", "keras"):
    from .losses import (
        BinaryCrossentropy,
        CategoricalCrossentropy,
        MeanSquaredError,
        SparseCategoricalCrossentropy,
    )

__all__ = ["BinaryCrossentropy", "CategoricalCrossentropy", "MeanSquaredError", "SparseCategoricalCrossentropy"]
