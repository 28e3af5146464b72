"""Every sample that PyTorch's own tests have for these losses: the same value, gradients and refusals.

Truth is PyTorch's result for the same numbers in float64. Errors may exceed those of PyTorch in the sample's own dtype
by a few ulp of the arithmetic, at the largest number of a result. A gradient of 16 bits is rounded when it is stored,
and again when it is multiplied by the cotangent.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import Any

import pytest
import torch
from torch.nn import functional

import fusedloss.torch as ft

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ULPS = 8
FUNCTIONS = ["cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"]
MODULES = ["CrossEntropyLoss", "BCELoss", "BCEWithLogitsLoss", "MSELoss"]
Call = tuple[Callable[..., torch.Tensor], tuple[Any, ...], dict[str, Any]]


@cache
def operators() -> dict[str, Any]:
    """PyTorch's table of functions with samples, which takes seconds to import."""
    from torch.testing._internal.common_methods_invocations import op_db

    return {op.name.removeprefix("nn.functional."): op for op in op_db}


@cache
def criteria() -> dict[str, Any]:
    """That of its modules."""
    from torch.testing._internal.common_modules import module_db

    return {module.name.removeprefix("nn."): module for module in module_db}


def cast(value: Any, dtype: torch.dtype | None) -> Any:
    """A leaf of its own for each run, in another floating dtype if one is given."""
    if not isinstance(value, torch.Tensor):
        return value
    dtype = dtype if dtype and value.is_floating_point() else value.dtype
    return value.detach().to(dtype, copy=True).requires_grad_(value.requires_grad)


def results(call: Call, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """The loss, and the gradients of what requires one by a cotangent that is different for every loss."""
    function, args, options = call
    args, options = [cast(each, dtype) for each in args], {name: cast(each, dtype) for name, each in options.items()}
    loss = function(*args, **options)
    leaves = [each for each in (*args, *options.values()) if isinstance(each, torch.Tensor) and each.requires_grad]
    cotangent = torch.linspace(0.5, 1.5, loss.numel(), dtype=torch.float64).view(loss.shape)
    return [loss.detach(), *torch.autograd.grad((loss.double() * cotangent).sum(), leaves)]


def assert_no_worse(ours: torch.Tensor, theirs: torch.Tensor, truth: torch.Tensor, wide: torch.dtype) -> None:
    assert ours.shape == truth.shape
    assert torch.equal(ours.isnan(), truth.isnan())
    ours, theirs, truth = (each[~truth.isnan()] for each in (ours, theirs, truth))
    if not truth.numel():
        return
    due = ULPS * torch.finfo(wide).eps * truth.abs().max()
    if ours.dtype.itemsize == 2:
        largest, tiny = torch.maximum(truth.abs(), ours.double().abs()), torch.finfo(ours.dtype).smallest_normal
        due = due + torch.finfo(ours.dtype).eps * largest.clamp(min=tiny)
    excess = (ours.double() - truth).abs() - (theirs.double() - truth).abs()
    assert (excess <= due).all(), (excess / due).max()


def compare(ours: Call, theirs: Call, dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    mine, their, truth = results(ours), results(theirs), results(theirs, torch.float64)
    assert mine[0].dtype == wide
    assert [each.dtype for each in mine[1:]] == [each.dtype for each in their[1:]]
    for each in zip(mine, their, truth, strict=True):
        assert_no_worse(*each, wide)


def function_samples(name: str, dtype: torch.dtype) -> Iterator[tuple[Call, Call]]:
    for sample in operators()[name].sample_inputs("cpu", dtype, requires_grad=True):
        args = (sample.input, *sample.args)
        yield tuple((getattr(library, name), args, sample.kwargs) for library in (ft, functional))


def module_samples(name: str, dtype: torch.dtype) -> Iterator[tuple[Call, Call]]:
    make = partial(criteria()[name].module_inputs_func, criteria()[name], "cpu", training=True)
    for sample in make(dtype, requires_grad=True):
        given, args = sample.constructor_input, sample.forward_input.args

        def criterion(*args: Any, library: Any, given: Any = given) -> torch.Tensor:
            weight = given.kwargs.get("weight")
            options = given.kwargs | ({} if weight is None else {"weight": weight.to(args[0].dtype)})
            return getattr(library, name)(**options)(*args)

        yield tuple((partial(criterion, library=library), args, {}) for library in (ft, torch.nn))


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """One dtype on compiled kernels, three without: those have tests of their own, and take their time to compile."""
    torch.manual_seed(0)
    if request.param != torch.float32:
        request.getfixturevalue("on_numpy")
    return request.param


@pytest.mark.parametrize(
    ("samples", "name"), [*product([function_samples], FUNCTIONS), *product([module_samples], MODULES)]
)
def test_samples(samples, name, dtype):
    calls = list(samples(name, dtype))
    assert len(calls) >= 6
    for ours, theirs in calls:
        compare(ours, theirs, dtype)


def test_refusals():
    """PyTorch has samples of errors for one of these losses; its messages are its own."""
    criterion, refused = criteria()["CrossEntropyLoss"], 0
    for sample in criterion.module_error_inputs_func(criterion, "cpu", torch.float32, False, True):
        assert sample.error_on.name == "FORWARD_ERROR"
        given = sample.module_error_input
        module, args = ft.CrossEntropyLoss(**given.constructor_input.kwargs), given.forward_input.args
        with pytest.raises(sample.error_type):
            module(*args)
        refused += 1
    assert refused >= 7
