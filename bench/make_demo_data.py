"""Makes ``src/fusedloss/data/digits.npz``, the data of ``fusedloss demo``.

The inputs are scikit-learn's bundled handwritten digits: 1797 images of 8 × 8 pixels, the test set of "Optical
Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0).
A perceptron with one hidden layer is trained on nine tenths of them and gives its logits for the last tenth, ten times
over, so that every image is scored by a network that has never seen it. Trained to convergence with little
regularisation, it is right about 97 % of the time and too sure of itself: something for the calibration to show.

The file holds ``logits`` (1797, 10) float32, ``target`` (1797,) uint8 and ``classes`` (10,) str. To make it again, with
scikit-learn installed: ``python bench/make_demo_data.py``. The seeds are fixed; another BLAS may change last digits.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier

PATH = Path(__file__).parents[1] / "src" / "fusedloss" / "data" / "digits.npz"
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class LogitPerceptron(MLPClassifier):
    """A perceptron that also gives what it feeds to the softmax."""

    def decision_function(self, images: np.ndarray) -> np.ndarray:
        """Logits of shape (N, 10)."""
        hidden = np.maximum(images @ self.coefs_[0] + self.intercepts_[0], 0)
        return hidden @ self.coefs_[1] + self.intercepts_[1]


def out_of_fold_logits(images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Logits of every image from the one network of ten that was not trained on it."""
    network = LogitPerceptron((64,), solver="lbfgs", alpha=0.01, max_iter=500, random_state=0)
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    return cross_val_predict(network, images, target, cv=folds, method="decision_function")


def main() -> None:
    """Train, score, report and write."""
    images, target = load_digits(return_X_y=True)
    logits = out_of_fold_logits(images / 16, target).astype(np.float32)
    np.savez_compressed(PATH, logits=logits, target=target.astype(np.uint8), classes=np.array(CLASSES))
    print(f"{PATH.name}: accuracy {np.mean(logits.argmax(axis=1) == target):.4f}, {PATH.stat().st_size} bytes")


if __name__ == "__main__":
    main()
