"""What the command's tests share: a folder with logits and targets."""

from pathlib import Path

import numpy as np

ROWS, CLASSES = 203, 7


class Files:
    """A folder with logits and targets, and what the library says of them."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder = folder
        self.x = rng.standard_normal((ROWS, CLASSES)).astype(np.float32) * 3
        self.y = rng.integers(0, CLASSES, ROWS)
        self.y[::10] = -100
        self.logits, self.targets = self.save("x.npy", self.x), self.save("y.npy", self.y)
        self.out = folder / "out.npz"

    def save(self, name: str, array: np.ndarray) -> Path:
        np.save(self.folder / name, array, allow_pickle=array.dtype.hasobject)
        return self.folder / name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
