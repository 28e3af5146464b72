"""Every kernel once, on small arrays on a card, for CUDA's checkers: ``compute-sanitizer python -m bench.gpu_sanity``.

What kernels write, and how, depends on shapes, strides and options; here is one call of each kind.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import product

import torch

import fusedloss as fl

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
SHAPES = {
    "a tile": (70, 10),
    "a few threads": (9, 333),
    "a warp": (5, 2001),
    "a block": (3, 9001),
    "a large block": (2, 70_001),
}
Calls = Iterator[tuple[str, Callable[[], object]]]


def calls(device: str, shapes: dict[str, tuple[int, int]], dtypes: list[torch.dtype]) -> Calls:
    """Each call, by name."""
    for dtype, (name, shape) in product(dtypes, shapes.items()):
        yield from ((f"{words}, {name}, {dtype}", call) for words, call in over_classes(device, shape, dtype))
    for dtype in dtypes:
        yield from ((f"{words}, {dtype}", call) for words, call in others(device, dtype))


def over_classes(device: str, shape: tuple[int, int], dtype: torch.dtype) -> Calls:
    """Losses, scores and activations of rows, also of some that begin anywhere."""
    rows, classes = shape
    x = torch.randn(rows * classes + 1, device=device).to(dtype)[1:].view(shape)
    y = torch.randint(classes, (rows,), device=device)
    soft = torch.softmax(torch.randn(shape, device=device), 1).to(dtype)
    weight = torch.rand(classes, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    both = fl.value_and_grad(fl.cross_entropy)
    yield "loss", lambda: fl.cross_entropy(x, y)
    yield "gradient", lambda: both(x, y)
    yield "gradient in place", lambda: fl.value_and_grad(fl.cross_entropy, out=(own := x.clone()))(own, y)
    yield "options", lambda: both(x, y, class_weight=weight, label_smoothing=0.1, softcap=30.0, z_loss=1e-4)
    yield "soft targets", lambda: both(x, soft)
    yield "divergence", lambda: fl.value_and_grad(fl.kl_divergence)(x, soft)
    yield "probabilities", lambda: fl.value_and_grad(fl.log_loss)(soft, y, normalize=True)
    yield "scores", lambda: fl.score(x, y)
    yield "evaluation", lambda: fl.evaluate(x, y)
    yield "activations", lambda: [f(x) for f in (fl.softmax, fl.log_softmax, fl.logsumexp)]
    yield "classes apart", lambda: both(x.t().contiguous().t(), y)


def others(device: str, dtype: torch.dtype) -> Calls:
    """Elements, however they lie."""
    x = torch.randn(5, 4099, device=device).to(dtype)
    y, p = (x > 0).to(dtype), torch.sigmoid(x)
    for words, lies in (("", lambda array: array), (" apart", lambda array: array[:, ::3])):
        a, b, c = (lies(array) for array in (x, y, p))
        yield f"binary loss{words}", lambda a=a, b=b: fl.value_and_grad(fl.binary_cross_entropy)(a, b)
        yield f"binary probabilities{words}", lambda b=b, c=c: fl.value_and_grad(fl.binary_log_loss)(c, b)
        yield f"squares{words}", lambda a=a, b=b: fl.value_and_grad(fl.mse)(a, b, reduction="none")
        yield f"sigmoid{words}", lambda a=a: fl.sigmoid(a)
        yield f"binary evaluation{words}", lambda a=a, b=b: fl.evaluate_binary(a, b)


def run(device: str, shapes: dict[str, tuple[int, int]] = SHAPES, dtypes: list[torch.dtype] = DTYPES) -> int:
    """Make each call; how many there are."""
    count = 0
    for name, call in calls(device, shapes, dtypes):
        try:
            call()
            fl.synchronize()
        except Exception as error:
            raise RuntimeError(f"{name} failed") from error
        count += 1
    return count


def main() -> None:
    """Make every call, or fewer."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_sanity", description=__doc__.splitlines()[0])
    parser.add_argument("--few", action="store_true", help="of one 16-bit dtype and float32, for slow checkers")
    dtypes = DTYPES[::2] if parser.parse_args().few else DTYPES
    print(f"{run('cuda', dtypes=dtypes)} calls")
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
