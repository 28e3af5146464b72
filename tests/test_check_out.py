"""What is refused as the array that a gradient or an activation is written to."""

import numpy as np
import pytest
from refusals import refuses

import fusedloss as fl

X = np.zeros((4, 10), np.float32)
SOFT = np.full((4, 10), 0.1)


def read_only(array):
    array.flags.writeable = False
    return array


REPEATED = np.lib.stride_tricks.as_strided(np.zeros(10, np.float32), (4, 10), (0, 4))


class TestOut:
    @pytest.mark.parametrize(
        ("out", "error", "message"),
        [
            ([0.0], fl.DTypeError, "out is a list, expected an array of dtype float32 and shape (4, 10)"),
            (np.zeros(40, np.float32), fl.ShapeError, "out has shape (40,), expected (4, 10)"),
            (np.zeros((4, 10)), fl.DTypeError, "out has dtype float64, expected float32"),
            (np.zeros((4, 10), np.int32), fl.DTypeError, "out has dtype int32, expected float32"),
            (read_only(X.copy()), fl.OptionError, "out is read-only, expected a writable array"),
            (REPEATED, fl.OptionError, "out is broadcast, expected an array whose elements are distinct"),
        ],
        ids=["list", "shape", "dtype", "integers", "read-only", "broadcast"],
    )
    def test_unfit(self, out, error, message):
        for loss, target in ((fl.cross_entropy, np.zeros(4, np.int64)), (fl.mse, SOFT)):
            refuses(error, message, fl.value_and_grad(loss, out=out), X, target)
        for activation in (fl.softmax, fl.sigmoid):
            refuses(error, message, activation, X, out=out)

    def test_for_logsumexp(self):
        half = X.astype(np.float16)
        refuses(fl.DTypeError, "out has dtype float16, expected float32", fl.logsumexp, half, out=half[:, 0])
        refuses(fl.ShapeError, "out has shape (4, 10), expected (4,)", fl.logsumexp, half, out=X)

    def test_overlapping(self):
        memory = np.zeros(100, np.float32)
        logits, target = memory[:40].reshape(4, 10), memory[40:80].reshape(4, 10)
        for loss in (fl.cross_entropy, fl.binary_cross_entropy):
            call = fl.value_and_grad(loss, out=memory[1:41].reshape(4, 10))
            message = "out overlaps logits in part, expected memory of its own, or out=logits"
            refuses(fl.OptionError, message, call, logits, target)
            message = "out overlaps target, expected memory of its own, or out=logits"
            refuses(fl.OptionError, message, fl.value_and_grad(loss, out=target), logits, target)
        weight, out = memory[:40].reshape(4, 10), memory[30:70].reshape(4, 10)
        message = "out overlaps pos_weight, expected memory of its own, or out=logits"
        call = fl.value_and_grad(fl.binary_cross_entropy, out=out)
        refuses(fl.OptionError, message, call, np.zeros((4, 10), np.float32), SOFT, pos_weight=weight)
        message = "out overlaps x in part, expected memory of its own, or out=x"
        square = memory.reshape(10, 10)
        refuses(fl.OptionError, message, fl.softmax, square, out=square[::-1])
        refuses(fl.OptionError, message, fl.log_softmax, square, out=square.T)
