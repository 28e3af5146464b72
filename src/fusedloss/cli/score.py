"""``fusedloss score``: logits in files, read once, in bounded memory."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import numpy as np

import fusedloss as fl

from ..errors import DTypeError, OptionError, ShapeError, TargetError
from ..files import Array, ArrayFile, open_array
from ..results import replacing, write_columns
from .blocks import row_blocks, with_axis
from .table import columns, quantities

Step: TypeAlias = Callable[[Array, Array], tuple[Any, Any]]

_BLOCK_BYTES = 1 << 26
_FIELDS = ("nll", "log_normalizer", "prediction", "confidence", "entropy", "rank", "brier")
_BINARY_FIELDS = ("nll", "probability", "prediction", "brier")


@dataclass(frozen=True)
class Job:
    """What to score: two files that fit each other, and how to cut them.

    ``axis`` is the axis of the logits that no block cuts: classes, labels, or none (``None``).
    """

    logits: ArrayFile
    targets: ArrayFile
    axis: int | None
    binary: bool
    chunk_rows: int

    @property
    def classes(self) -> int:
        """Length of the axis that is not cut."""
        return 1 if self.axis is None else self.logits.shape[self.axis]

    def _rows(self) -> tuple[int, ...]:
        shape = self.logits.shape
        return shape if self.axis is None else shape[: self.axis] + shape[self.axis + 1 :]
