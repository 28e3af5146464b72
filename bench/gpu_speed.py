"""Times of calls on PyTorch's tensors on a card: ``python -m bench.gpu_speed SECTION ...``; `bench.gpu` runs it.

A result is a ratio of two times of one run, the median over rounds in which all contenders took turns. What moves bytes
is held against a copy on the card that moves as many; every contender's answer is compared with float64 before.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

import fusedloss as fl

from .aims import MARK, Aim, Seconds

GIGABYTES = 2 << 30  # of logits
ROUNDS = 15
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
LEAST = {
    10: (0.60, 0.60), 256: (0.60, 0.60), 1024: (0.70, 0.65), 4096: (0.85, 0.80), 32000: (0.90, 0.85),
    128256: (0.90, 0.80), 262144: (0.85, 0.75),
}  # fmt: skip
"""By the number of classes: what the loss should reach of half a copy, and loss + gradient of a copy."""
FEW = (10, 256)

Call = Callable[[], Any]
both = fl.value_and_grad(fl.cross_entropy)


class Place(NamedTuple):
    """Where and how long to measure, and how a call is timed: on the card, and with all that the host does."""

    device: str
    nbytes: int  # of the logits, where a section does not say otherwise
    rounds: int
    on_card: Callable[[Call], float]
    in_all: Callable[[Call], float]


def by_events(call: Call) -> float:
    """Seconds of the card. It is kept busy before, so that the host is ahead and no launch is waited for."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(2_000_000)  # cycles, about a millisecond
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def by_clock(call: Call, calls: int = 1) -> float:
    """Seconds of the host, until the card is done too."""
    wait()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (time.perf_counter() - started) / calls


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    fl.synchronize()


def turns(contenders: dict[str, Call], rounds: int, timed: Callable[[Call], float]) -> Seconds:
    """Seconds of each contender, a round after another, in an order that changes; two rounds come before."""
    order, shuffled = list(contenders), random.Random(0)
    seconds: Seconds = {name: [] for name in order}
    for number in range(rounds + 2):
        shuffled.shuffle(order)
        for name in order:
            taken = timed(contenders[name])
            if number >= 2:
                seconds[name].append(taken)
    return seconds


def results(aims: list[Aim], seconds: Seconds, nbytes: int = 0) -> Iterator[dict[str, Any]]:
    """What was reached of each aim."""
    for aim in aims:
        row = aim.row(seconds)
        copied = row["seconds"].get("copy")
        yield row | ({"copied_gb_per_second": 2 * nbytes / copied / 1e9} if copied else {})


def drawn(place: Place, classes: int, dtype: torch.dtype, rows: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and classes."""
    size = torch.finfo(dtype).bits // 8
    rows = rows or max(-(-place.nbytes // (classes * size)), 4)
    torch.manual_seed(0)
    x = torch.randn(rows, classes, device=place.device, dtype=dtype)
    return x, torch.randint(classes, (rows,), device=place.device)


def check(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> None:
    """Compare what is about to be timed with float64 in the first rows and the last, and means with all rows."""
    out.fill_(float("nan"))
    nll = fl.cross_entropy(x, y, reduction="none")
    loss, gradient = both_into(out)(x, y)
    scores, report = fl.score(x, y), fl.evaluate(x, y)
    wait()
    assert gradient is out
    rows = len(x)
    some = torch.tensor(sorted({*range(min(8, rows)), *range(max(rows - 8, 0), rows)}), device=x.device)
    z = x[some].double()
    wanted = torch.softmax(z, 1)
    wanted[torch.arange(len(some), device=x.device), y[some]] -= 1
    agree(nll[some], functional.cross_entropy(z, y[some], reduction="none"), 1e-6)
    agree(scores.nll, nll, 2e-6)
    agree(z.gather(1, scores.prediction[some, None])[:, 0], z.max(1).values, 0)
    step = float(wanted.abs().max()) * (2**-8 if x.dtype == torch.bfloat16 else 1e-5)
    agree(gradient[some].double() * rows, wanted, step)
    assert bool(torch.isfinite(out.view(-1)[:: max(x.shape[1] // 64, 1)]).all()), "part of the gradient is not written"
    for mean in (loss, fl.cross_entropy(x, y), torch.tensor(report.nll)):
        agree(mean.cpu(), nll.double().mean().cpu(), 1e-6)


def agree(got: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Refuse what is further off than so much, or than so much of what is wanted; NaN always is."""
    got, wanted = got.double(), wanted.double()
    off = float(((got - wanted).abs() / wanted.abs().clamp(min=1)).max())
    assert off <= tolerance, f"off by {off:.3g}, expected {tolerance:.3g}"


def both_into(out: torch.Tensor) -> Callable[..., Any]:
    return fl.value_and_grad(fl.cross_entropy, out=out)


def of_memory(place: Place, classes: int, name: str) -> Iterator[dict[str, Any]]:
    """Loss, and loss + gradient, of gigabytes of logits beside a copy; with more than a few classes scores, too."""
    x, y = drawn(place, classes, DTYPES[name], 1 << 24 if classes == 10 and place.nbytes else 0)
    out = torch.empty_like(x)
    check(x, y, out)
    (loss, gradient), few = LEAST[classes], classes in FEW
    calls: dict[str, Call] = {
        "copy": lambda: out.copy_(x),
        "loss": lambda: fl.cross_entropy(x, y),
        "gradient": lambda: both_into(out)(x, y),
    }
    text = f"{len(x)} × {classes} {name}"
    aims = [
        Aim("loss / half a copy", text, loss, 0.85 if few else 0.95, ("copy",), "loss", 0.5),
        Aim("loss + gradient / copy", text, gradient, 0.85 if few else 0.93, ("copy",), "gradient"),
    ]
    if not few:
        calls |= {"score": lambda: fl.score(x, y), "evaluate": lambda: fl.evaluate(x, y)}
        aims += [Aim(f"{case} / loss", text, 0.85, 1.0, ("loss",), case) for case in ("score", "evaluate")]
    yield from results(aims, turns(calls, place.rounds, place.on_card), x.nbytes)


def of_torch(place: Place, compiled: bool) -> Iterator[dict[str, Any]]:
    """PyTorch's loss and its gradient beside ours."""
    x, y = drawn(place, 128256, torch.bfloat16, 8192 if place.nbytes else 4)
    theirs = torch.compile(functional.cross_entropy) if compiled else functional.cross_entropy
    leaf = x.detach().requires_grad_()

    def backward() -> torch.Tensor:
        leaf.grad = None
        theirs(leaf, y).backward()
        return leaf.grad

    loss, gradient = both(x, y)
    agree(gradient[:64].float() * len(x), backward()[:64].float() * len(x), 2**-6)
    agree(loss, fl.cross_entropy(x, y, reduction="none").double().mean(), 1e-6)
    agree(loss, functional.cross_entropy(x, y), 2**-7)
    who = "torch.compile" if compiled else "torch"
    ends = (1.5, 2.5) if compiled else (4.0, 6.0)
    aim = Aim(f"{who} / ours", f"loss + gradient, {len(x)} × 128256 bfloat16", *ends, (who,), "ours")
    yield from results([aim], turns({who: backward, "ours": lambda: both(x, y)}, place.rounds, place.on_card))


def of_one_call(place: Place) -> Iterator[dict[str, Any]]:
    """What a call on few logits costs the host."""
    x, y = drawn(place, 1000, torch.float32, 32)
    agree(fl.cross_entropy(x, y), functional.cross_entropy(x.double(), y), 1e-6)
    timed = partial(by_clock, calls=1000 if place.nbytes else 2)
    leaf = x.detach().requires_grad_()

    def backward() -> None:
        leaf.grad = None
        functional.cross_entropy(leaf, y).backward()

    pairs: dict[str, tuple[Call, Call]] = {
        "loss": (lambda: functional.cross_entropy(x, y), lambda: fl.cross_entropy(x, y)),
        "loss + gradient": (backward, lambda: both(x, y)),
    }
    for what, (theirs, ours) in pairs.items():
        aim = Aim("torch / ours, one call", f"32 × 1000 {what}", 1.0, 2.0, ("torch",), "ours")
        yield from results([aim], turns({"torch": theirs, "ours": ours}, place.rounds, timed))


def of_the_link(place: Place) -> Iterator[dict[str, Any]]:
    """Logits in the host's memory, beside a copy of as much pinned memory to the card."""
    rows = max(place.nbytes // (4 * 32000), 4)
    x, y = np.random.default_rng(0).standard_normal((rows, 32000), np.float32), np.arange(rows) % 32000
    held = torch.from_numpy(x)
    held = held.pin_memory() if place.device == "cuda" else held.clone()
    there, pinned = torch.empty(held.shape, device=place.device), held.numpy()
    wanted = functional.cross_entropy(held[:4].double(), torch.from_numpy(y[:4]), reduction="none")
    for source in (x, pinned):
        agree(torch.from_numpy(fl.cross_entropy(source[:4], y[:4], reduction="none", device="cuda")), wanted, 1e-6)
    calls: dict[str, Call] = {
        "pinned copy": lambda: there.copy_(held, non_blocking=True),
        "ours": lambda: fl.cross_entropy(x, y, device="cuda"),
        "ours, pinned": lambda: fl.cross_entropy(pinned, y, device="cuda"),
    }
    aims = [
        Aim("host logits / pinned copy", f"{rows} × 32000 float32{how}", 0.85, 0.97, ("pinned copy",), f"ours{how}")
        for how in ("", ", pinned")
    ]
    yield from results(aims, turns(calls, min(place.rounds, 5), place.in_all))


Section = Callable[[Place], Iterator[dict[str, Any]]]
SECTIONS: dict[str, Section] = {
    f"{'few-' if classes in FEW else ''}{name}-{classes}": partial(of_memory, classes=classes, name=name)
    for name in DTYPES
    for classes in LEAST
} | {
    "torch": partial(of_torch, compiled=False),
    "compile": partial(of_torch, compiled=True),
    "call": of_one_call,
    "host": of_the_link,
}


def main() -> None:
    """Measure sections, and print each result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_speed", description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--tiny", action="store_true", help="a few rows: checks, and has kernels compiled")
    given = parser.parse_args()
    place = Place("cuda", 0 if given.tiny else GIGABYTES, 1 if given.tiny else ROUNDS, by_events, by_clock)
    for name in given.sections:
        for told in SECTIONS[name](place):
            print(MARK + json.dumps(told), flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
