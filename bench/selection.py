"""What is published: the tasks of the suite."""

from collections.abc import Iterable
from math import prod

from fusedloss.bench.cases import CASES, Task, tasks
from fusedloss.bench.peers import contenders

SHAPES = [(32, 10), (65536, 10), (65536, 128), (32768, 1000), (4096, 32000), (1024, 128256), (16, 21, 256, 256)]
FRAMEWORKS = ("loss", "gradient", "buffer", "evaluate")
SUITE = [
    *tasks(["hard"], SHAPES, ["float32"], CASES),
    *tasks(["hard"], [(32768, 1000)], ["bfloat16", "float16", "float64"], FRAMEWORKS),
    *tasks(["soft", "smoothing", "z-loss", "softcap"], [(32768, 1000)], ["float32"], ["loss", "buffer"]),
    *tasks(["binary"], [(8192, 4096)], ["float32"], FRAMEWORKS),
]
SLOW = ("numpy", "scipy", "sklearn")  # beside these, plain float32 losses of the first shapes are enough
_SMALL = 1 << 20  # elements


def compared(task: Task, peers: Iterable[str]) -> list[str]:
    """The library and those of the peers with whom a task is published."""
    plain = (task.loss, task.dtype) == ("hard", "float32") and task.shape in SHAPES[:4]
    return [who for who in contenders(task, peers) if plain or who not in SLOW]


def small(task: Task) -> bool:
    """Whether a task takes no time."""
    return prod(task.shape) <= _SMALL
