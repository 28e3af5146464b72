"""scikit-learn: ``log_loss``, of the probabilities that SciPy makes of the logits."""

import numpy as np
from scipy.special import softmax
from sklearn.metrics import log_loss

from ..cases import Task
from ..inputs import Inputs
from ..turns import Contender
from .numpy import answer

__all__ = ["answer", "contender"]

_MOST = 1 << 26  # elements: it makes several arrays of eight bytes an element


def contender(task: Task, inputs: Inputs, threads: int) -> Contender | None:
    """Give a call with the arrays as they are, for the plain loss of rows of two classes or more."""
    x, y = inputs.x, inputs.y
    plain = task.loss == "hard" and task.case == "loss" and x.itemsize > 2
    if not plain or x.ndim > 2 or x.shape[1] < 2 or x.size > _MOST:
        return None
    classes = np.arange(x.shape[1])
    return Contender(lambda: (log_loss(y, softmax(x, axis=1), labels=classes),))
