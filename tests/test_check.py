"""What is refused: every wrong shape, dtype, option, target and device, by a typed error that says what was given and
what was expected. Nothing of it needs a kernel, but for targets and probabilities out of range."""

import ml_dtypes
import numpy as np
import pytest
from refusals import refuses

import fusedloss as fl

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

X = np.zeros((4, 10), np.float32)
P = np.full((4, 10), 0.1)
HARD = np.zeros(4, np.int64)
SOFT = np.full((4, 10), 0.1)
LOSSES = {
    fl.cross_entropy: (X, HARD),
    fl.kl_divergence: (X, SOFT),
    fl.log_loss: (P, HARD),
    fl.binary_cross_entropy: (X, SOFT),
    fl.binary_log_loss: (P, SOFT),
    fl.mse: (X, SOFT),
}
ROW_LOSSES = [fl.cross_entropy, fl.kl_divergence, fl.log_loss]
ELEMENT_LOSSES = [fl.binary_cross_entropy, fl.binary_log_loss, fl.mse]


@pytest.fixture(params=LOSSES, ids=lambda loss: loss.__name__)
def loss(request):
    return request.param


def name_of(loss):
    return {"log_loss": "probs", "binary_log_loss": "probs", "mse": "pred"}.get(loss.__name__, "logits")


class TestLogits:
    FLOATS = "expected float16, bfloat16, float32 or float64"

    @pytest.mark.parametrize(
        "dtype", [np.int32, np.uint8, bool, complex, "datetime64[s]", "S3", object, "V2", ml_dtypes.float8_e4m3fn]
    )
    def test_dtype(self, loss, dtype):
        name, verb = name_of(loss), "has" if loss is fl.mse else "have"
        logits = np.zeros((4, 10), dtype)
        refuses(fl.DTypeError, f"{name} {verb} dtype {logits.dtype}, {self.FLOATS}", loss, logits, LOSSES[loss][1])

    @pytest.mark.parametrize("activation", [fl.softmax, fl.log_softmax, fl.logsumexp, fl.sigmoid])
    def test_of_activations(self, activation):
        refuses(fl.DTypeError, f"x has dtype int64, {self.FLOATS}", activation, np.zeros(3, np.int64))

    @pytest.mark.parametrize("call", [fl.softmax, fl.log_softmax, fl.logsumexp])
    def test_no_axes(self, call):
        refuses(fl.ShapeError, "x has no axes, expected at least the class axis", call, np.float32(1))

    def test_no_classes(self, backend):
        message = "have shape (4, 0), expected at least one class along axis 1"
        empty = np.zeros((4, 0))
        refuses(fl.ShapeError, f"logits {message}", fl.cross_entropy, empty, HARD, device=backend)
        refuses(fl.ShapeError, f"logits {message}", fl.kl_divergence, empty, empty, device=backend)
        refuses(fl.ShapeError, f"probs {message}", fl.log_loss, empty, HARD, device=backend)
        refuses(fl.ShapeError, f"logits {message}", fl.score, empty, device=backend)
        refuses(fl.ShapeError, f"x {message.replace('have', 'has')}", fl.softmax, empty, device=backend)

    def test_ragged_lists_and_text(self):
        with pytest.raises(fl.ShapeError, match="^logits cannot be read as an array: "):
            fl.cross_entropy([[1.0], [1.0, 2.0]], [0, 0])
        with pytest.raises(fl.DTypeError, match="^target has dtype <U4, expected integer classes, or probabilities"):
            fl.cross_entropy(X, ["many"] * 4)


class TestAxis:
    @pytest.mark.parametrize("axis", [2, -3, 2**70])
    @pytest.mark.parametrize("loss", ROW_LOSSES)
    def test_out_of_range(self, loss, axis):
        message = f"axis is {axis}, expected one in [-2, 2) of the {name_of(loss)}' shape (4, 10)"
        refuses(fl.OptionError, message, loss, *LOSSES[loss], axis=axis)
        message = f"axis is {axis}, expected one in [-2, 2) of x's shape (4, 10)"
        refuses(fl.OptionError, message, fl.softmax, X, axis)

    @pytest.mark.parametrize("axis", [None, 1.0, "1", (0, 1)])
    def test_no_integer(self, axis):
        refuses(fl.OptionError, f"axis is {axis!r}, expected an integer", fl.cross_entropy, X, HARD, axis=axis)
        refuses(fl.OptionError, f"axis is {axis!r}, expected an integer", fl.softmax, X, axis=axis)


class TestTarget:
    @pytest.mark.parametrize("loss", [fl.cross_entropy, fl.log_loss])
    def test_hard_shape(self, loss):
        tail = f"expected (4,), the {name_of(loss)}' shape (4, 10) without axis 1"
        refuses(fl.ShapeError, f"target has shape (3,), {tail}", loss, P, np.zeros(3, int))
        refuses(fl.ShapeError, f"target has shape (), {tail}", loss, P, 0)
        message = f"target has shape (4, 10), {tail}; a soft target must be floating"
        refuses(fl.ShapeError, message, loss, P, SOFT.astype(int))

    @pytest.mark.parametrize("loss", ROW_LOSSES)
    def test_soft_shape(self, loss):
        message = f"target has shape (10, 4), expected (4, 10), the {name_of(loss)}' shape (4, 10)"
        refuses(fl.ShapeError, message, loss, P, SOFT.T)

    @pytest.mark.parametrize("loss", ELEMENT_LOSSES)
    @pytest.mark.parametrize("shape", [(4,), (4, 1), (10, 4), ()])
    def test_element_shape(self, loss, shape):
        of = "pred's" if loss is fl.mse else f"the {name_of(loss)}'"
        message = f"target has shape {shape}, expected (4, 10), {of} shape"
        refuses(fl.ShapeError, message, loss, P, np.zeros(shape))

    def test_dtype(self):
        floats = "float16, bfloat16, float32 or float64"
        classes = f"expected integer classes, or probabilities: {floats}"
        refuses(fl.DTypeError, f"target has dtype bool, {classes}", fl.cross_entropy, X, np.zeros(4, bool))
        refuses(fl.DTypeError, f"target has dtype complex128, {classes}", fl.cross_entropy, X, SOFT.astype(complex))
        message = "target has dtype float32, expected integers for classes of shape (4,)"
        refuses(fl.DTypeError, message, fl.cross_entropy, X, np.zeros(4, np.float32))
        message = f"target has dtype int64, expected probabilities: {floats}"
        refuses(fl.DTypeError, message, fl.kl_divergence, X, HARD)
        message = f"target has dtype complex64, expected bool, an integer dtype, {floats}"
        refuses(fl.DTypeError, message, fl.mse, X, X.astype(np.complex64))

    def test_scores_need_classes(self):
        message = "target has dtype float64, expected integers of shape (4,): scores need classes"
        refuses(fl.DTypeError, message, fl.score, X, SOFT)
        refuses(fl.DTypeError, message, fl.evaluate, X, SOFT)
        with pytest.raises(fl.ShapeError, match=r"target has shape \(3,\), expected \(4, 10\)"):
            fl.evaluate_binary(X, np.zeros(3))


class TestTargetOutOfRange:
    """The first bad row and its value are named. A kernel that read there first would crash: the values are far out."""

    @pytest.mark.parametrize("classes", [1, 10, 40])
    @pytest.mark.parametrize("value", [-1, -101, 2**31, 2**40, 2**62, -(2**62)])
    def test_the_first_is_named(self, backend, classes, value):
        logits, target = np.zeros((200, classes)), np.zeros(200, np.int64)
        target[7] = target[150] = -100
        target[[40, 120]] = value, classes
        message = f"target[40] is {value}, expected a class in [0, {classes}) or ignore_index=-100"
        call = fl.value_and_grad(fl.cross_entropy)
        refuses(fl.TargetError, message, call, logits, target, device=backend)

    @pytest.mark.parametrize("call", [fl.value_and_grad(fl.log_loss), fl.score, fl.evaluate])
    def test_wherever_there_are_classes(self, backend, call):
        message = "target[1, 2] is 3, expected a class in [0, 3) or ignore_index=-100"
        target = np.zeros((2, 4), np.int64)
        target[1, 2:] = 3, -1
        refuses(fl.TargetError, message, call, np.full((2, 3, 4), 0.25), target, axis=1, device=backend)

    def test_one_past_the_end_and_another_ignore_index(self, backend):
        message = "target[3] is -100, expected a class in [0, 10) or ignore_index=10"
        call = fl.value_and_grad(fl.cross_entropy)
        refuses(fl.TargetError, message, call, P, np.array([0, 10, 9, -100]), ignore_index=10, device=backend)

    @pytest.mark.parametrize("value", [2**63, 2**64 - 1, 2**64 - 100, 10])
    def test_uint64(self, backend, value):
        """2**64 − 100 is not −100."""
        target = np.array([0, 9, value, 0], np.uint64)
        message = f"target[2] is {value}, expected a class in [0, 10) or ignore_index=-100"
        refuses(fl.TargetError, message, fl.value_and_grad(fl.cross_entropy), P, target, device=backend)

    def test_a_single_row(self, backend):
        message = "target is 10, expected a class in [0, 10) or ignore_index=-100"
        refuses(fl.TargetError, message, fl.value_and_grad(fl.cross_entropy), P[0], 10, device=backend)

    def test_a_masked_row_is_not_looked_at(self, backend):
        target, weight = np.array([0, 99, 1, 1]), [1, 0, 1, 1]
        value, _ = fl.value_and_grad(fl.cross_entropy)(P, target, sample_weight=weight, device=backend)
        assert value == pytest.approx(np.log(10))

    def test_no_other_memory_is_touched(self, backend):
        guarded = np.full((6, 10), 7.0)
        with pytest.raises(fl.TargetError):
            fl.value_and_grad(fl.cross_entropy, out=guarded[1:5])(P, np.array([0, 1, 10, 2**40]), device=backend)
        assert (guarded[[0, 5]] == 7).all()


class TestProbabilities:
    EXPECTED = "expected a probability in [0, 1]"

    @pytest.mark.parametrize("loss", [fl.log_loss, fl.binary_log_loss])
    @pytest.mark.parametrize("value", [-0.5, 1.5, np.inf, -np.inf])
    def test_the_first_is_named(self, backend, loss, value):
        probs = P.copy()
        probs[1, 3], probs[3, 0], probs[0, 1] = value, 2.0, np.nan
        call = fl.value_and_grad(loss)
        options = {"sample_weight": np.ones(4), "device": backend}
        refuses(fl.ProbabilityError, f"probs[1, 3] is {value}, {self.EXPECTED}", call, probs, SOFT, **options)

    def test_the_least_beyond_a_bound(self, backend):
        for value in (np.nextafter(1, 2), np.nextafter(0, -1)):
            with pytest.raises(fl.ProbabilityError, match=r"^probs\[0, 1\] is .*, expected a probability in \[0, 1\]$"):
                call = fl.value_and_grad(fl.binary_log_loss)
                call(np.array([[0, value]]), np.ones((1, 2)), sample_weight=np.ones(1), device=backend)

    def test_to_be_normalised(self, backend):
        call, message = fl.value_and_grad(fl.log_loss), "probs[2, 4] is -1.0, expected a finite number of at least 0"
        probs = 3 * P
        probs[2, 4] = -1
        refuses(fl.ProbabilityError, message, call, probs, HARD, normalize=True, device=backend)


class TestWeights:
    def test_class_weight(self):
        for shape in [(9,), (), (1, 10), (4,)]:
            message = f"class_weight has shape {shape}, expected (10,), one weight a class"
            refuses(fl.ShapeError, message, fl.log_loss, P, HARD, class_weight=np.ones(shape))

    @pytest.mark.parametrize("shape", [(3,), (10,), (5, 1)])
    def test_sample_weight_of_rows(self, shape):
        for loss in ROW_LOSSES:
            message = f"sample_weight has shape {shape}, expected one that broadcasts to (4,)"
            refuses(fl.ShapeError, message, loss, *LOSSES[loss], sample_weight=np.ones(shape))

    def test_sample_weight_of_elements(self):
        """One weight a label is pos_weight's affair: trailing axes alone are refused, not guessed at."""
        for loss in ELEMENT_LOSSES:
            message = "sample_weight has shape (10,), expected (4, 10), or its leading axes"
            refuses(fl.ShapeError, message, loss, *LOSSES[loss], sample_weight=np.ones(10))
            message = "sample_weight has shape (2, 10), expected one that broadcasts to (4, 10)"
            refuses(fl.ShapeError, message, loss, *LOSSES[loss], sample_weight=np.ones((2, 10)))

    def test_pos_weight(self):
        message = "pos_weight has shape (4,), expected one that broadcasts to (4, 10)"
        refuses(fl.ShapeError, message, fl.binary_cross_entropy, X, SOFT, pos_weight=np.ones(4))

    @pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        ("name", "loss", "length"),
        [
            ("class_weight", fl.cross_entropy, 10),
            ("class_weight", fl.log_loss, 10),
            ("sample_weight", fl.kl_divergence, 4),
            ("sample_weight", fl.mse, 4),
            ("pos_weight", fl.binary_cross_entropy, 10),
        ],
    )
    def test_values(self, name, loss, length, value):
        weight = np.ones(length)
        weight[2] = value
        message = f"{name} holds {value}, expected finite weights of at least 0"
        refuses(fl.OptionError, message, loss, *LOSSES[loss], **{name: weight})

    def test_dtype(self):
        message = "has dtype complex128, expected bool, an integer dtype, float16, bfloat16, float32 or float64"
        refuses(fl.DTypeError, f"class_weight {message}", fl.cross_entropy, X, HARD, class_weight=np.ones(10, complex))
        refuses(fl.DTypeError, f"sample_weight {message}", fl.mse, X, SOFT, sample_weight=np.ones(4, complex))


NO_NUMBERS = [np.nan, "0.5", None, [0.1, 0.2], 1j]


class TestOptions:
    @pytest.mark.parametrize("value", ["average", None, "Mean", 0])
    def test_reduction(self, loss, value):
        message = f"reduction is {value!r}, expected one of 'mean', 'sum', 'batchmean', 'none'"
        refuses(fl.OptionError, message, loss, *LOSSES[loss], reduction=value)

    @pytest.mark.parametrize("value", [0, -1, np.inf, np.nan, "2"])
    def test_denominator(self, loss, value):
        message = f"denominator is {value!r}, expected None or a finite positive number"
        refuses(fl.OptionError, message, loss, *LOSSES[loss], denominator=value)

    @pytest.mark.parametrize("reduction", ["sum", "batchmean", "none"])
    def test_denominator_with_another_reduction(self, loss, reduction):
        message = f"denominator is given with reduction='{reduction}', expected reduction='mean'"
        refuses(fl.OptionError, message, loss, *LOSSES[loss], denominator=2, reduction=reduction)

    @pytest.mark.parametrize(
        ("name", "losses", "values", "expected"),
        [
            ("label_smoothing", [fl.cross_entropy, fl.binary_cross_entropy], [-0.1, 1.1], "a number in [0, 1]"),
            ("label_smoothing", [fl.log_loss, fl.binary_log_loss], [-1e-9, np.inf], "a number in [0, 1]"),
            ("z_loss", [fl.cross_entropy], [-1e-4, np.inf], "a finite number of at least 0"),
            ("logit_scale", [fl.cross_entropy, fl.kl_divergence], [np.inf, -np.inf], "a finite number"),
            ("eps", [fl.log_loss, fl.binary_log_loss], [-1e-7, 0.5, 1], "a number in [0, 0.5)"),
            ("log_eps", [fl.log_loss, fl.binary_log_loss], [-1e-7, np.inf], "a finite number of at least 0"),
        ],
    )
    def test_numbers(self, name, losses, values, expected):
        for loss in losses:
            for value in [*values, *NO_NUMBERS]:
                message = f"{name} is {value!r}, expected {expected}"
                refuses(fl.OptionError, message, loss, *LOSSES[loss], **{name: value})

    @pytest.mark.parametrize("value", [0, -30, np.inf, np.nan, "30"])
    def test_softcap(self, value):
        message = f"softcap is {value!r}, expected None or a finite positive number"
        refuses(fl.OptionError, message, fl.cross_entropy, X, HARD, softcap=value)
        refuses(fl.OptionError, message, fl.score, X, softcap=value)

    def test_ignore_index(self):
        for value in (1.0, None, "-100"):
            message = f"ignore_index is {value!r}, expected an integer"
            refuses(fl.OptionError, message, fl.cross_entropy, X, HARD, ignore_index=value)
        message = f"ignore_index is {2**63}, expected an integer in [-2**63, 2**63 - 1)"
        refuses(fl.OptionError, message, fl.log_loss, P, HARD, ignore_index=2**63)

    @pytest.mark.parametrize("value", [1, None, "yes"])
    def test_normalize(self, value):
        message = f"normalize is {value!r}, expected True or False"
        refuses(fl.OptionError, message, fl.log_loss, P, HARD, normalize=value)

    @pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, None])
    def test_threshold(self, value):
        message = f"threshold is {value!r}, expected a number in [0, 1]"
        refuses(fl.OptionError, message, fl.score_binary, X, threshold=value)
        refuses(fl.OptionError, message, fl.evaluate_binary, X, SOFT, threshold=value)

    @pytest.mark.parametrize("value", [0, -5, 1.5, "5", None])
    def test_counts(self, value):
        message = f"is {value!r}, expected a positive integer"
        refuses(fl.OptionError, f"bins {message}", fl.evaluate, X, HARD, bins=value)
        refuses(fl.OptionError, f"top_k {message}", fl.evaluate, X, HARD, top_k=(1, value))

    def test_value_and_grad_takes_a_loss(self):
        with pytest.raises(fl.OptionError, match="^value_and_grad got .*, expected one of fusedloss's losses: .*mse"):
            fl.value_and_grad(fl.softmax)


class TestDevices:
    NAMES = "expected one of 'auto', 'cpu', 'numpy', 'cuda'"

    @pytest.mark.parametrize("device", ["gpu", "CPU", "", None, 0])
    def test_unknown(self, loss, device):
        refuses(fl.DeviceError, f"device is {device!r}, {self.NAMES}", loss, *LOSSES[loss], device=device)
        refuses(fl.DeviceError, f"device is {device!r}, {self.NAMES}", fl.softmax, X, device=device)
        refuses(fl.DeviceError, f"device is {device!r}, {self.NAMES}", fl.score, X, device=device)

    @pytest.mark.parametrize("device", ["cuda", "cuda:1"])
    def test_that_cannot_serve(self, device, no_card):
        reason = fl.devices()["cuda"].reason
        message = f"device is {device!r}, which cannot serve: {reason}"
        refuses(fl.DeviceError, message, fl.cross_entropy, X, HARD, device=device)
        assert reason == no_card

    def test_by_the_environment(self, monkeypatch):
        from fusedloss import backends

        monkeypatch.setenv("FUSEDLOSS_DEVICE", "tpu")
        backends._resolve.cache_clear()
        refuses(fl.DeviceError, f"FUSEDLOSS_DEVICE is 'tpu', {self.NAMES}", fl.mse, X, SOFT)
        backends._resolve.cache_clear()
