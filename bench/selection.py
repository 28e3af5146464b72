"""What is published: the tasks of the suite."""

from math import prod

from fusedloss.bench.cases import CASES, Task, tasks

SHAPES = [(32, 10), (65536, 10), (65536, 128), (32768, 1000), (4096, 32000), (1024, 128256), (16, 21, 256, 256)]
FRAMEWORKS = ("loss", "gradient", "buffer", "evaluate")
SUITE = [
    *tasks(["hard"], SHAPES, ["float32"], CASES),
    *tasks(["hard"], [(32768, 1000)], ["bfloat16", "float16", "float64"], FRAMEWORKS),
    *tasks(["soft", "smoothing", "z-loss", "softcap"], [(32768, 1000)], ["float32"], ["loss", "buffer"]),
    *tasks(["binary"], [(8192, 4096)], ["float32"], FRAMEWORKS),
]
_SMALL = 1 << 20  # elements


def small(task: Task) -> bool:
    """Whether a task takes no time."""
    return prod(task.shape) <= _SMALL
