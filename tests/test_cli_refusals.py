"""What the command refuses, in one line, with exit code 2 and every file as it was."""

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from cli_files import CLASSES, Files, contents, error_of

import fusedloss as fl


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> Files:
    return Files(tmp_path, rng)


class TestRefusals:
    """Each with one line, exit code 2, and every file in the folder as it was."""

    @pytest.fixture(autouse=True)
    def untouched(self, files: Files):
        files.out.write_bytes(b"older")
        before: dict[str, bytes] = {}
        self.refuse = self._refusal(files, before)
        yield
        assert before
        assert contents(files.folder) == before

    @staticmethod
    def _refusal(files: Files, before: dict[str, bytes]):
        def refuse(capsys, logits, targets, *options) -> str:
            before.update(contents(files.folder))
            options = options if "-o" in options else ("-o", files.out, *options)
            return error_of(capsys, "score", logits, targets, *options)

        return refuse

    def test_missing_files(self, files: Files, capsys):
        missing = files.folder / "none.npy"
        assert self.refuse(capsys, missing, files.targets) == f"{missing}: cannot be read: No such file or directory"
        assert self.refuse(capsys, files.logits, missing) == f"{missing}: cannot be read: No such file or directory"

    def test_truncated(self, files: Files, capsys):
        os.truncate(files.logits, 1000)
        error = self.refuse(capsys, files.logits, files.targets)
        assert error == f"{files.logits}: is truncated: 872 bytes of elements, expected 5684 for float32 (203, 7)"

    def test_damaged_while_it_is_decompressed(self, files: Files, capsys):
        path = files.folder / "z.npz"
        np.savez_compressed(path, files.x)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
        assert "z.npz: is damaged: " in self.refuse(capsys, path, files.targets)

    def test_pickled(self, files: Files, capsys):
        objects = files.save("o.npy", np.array([1, None]))
        assert (
            self.refuse(capsys, objects, files.targets) == f"{objects}: holds pickled Python objects, expected numbers"
        )

    @pytest.mark.parametrize("dtype", ["<i4", "<c8", "<U3", "?", "<g"])
    def test_dtype_of_logits(self, files: Files, capsys, dtype):
        logits = files.save("z.npy", files.x.astype(dtype))
        error = self.refuse(capsys, logits, files.targets)
        assert error == f"{logits}: has dtype {np.dtype(dtype)}, expected float16, float32 or float64"

    def test_bfloat16_bits(self, files: Files, capsys):
        logits = files.save("z.npy", files.x.astype(ml_dtypes.bfloat16).view(np.uint16))
        assert self.refuse(capsys, logits, files.targets).endswith("; for bfloat16 bits give --dtype bfloat16")
        error = self.refuse(capsys, files.logits, files.targets, "--dtype", "bfloat16")
        assert error.endswith("has dtype float32, expected uint16 with --dtype bfloat16")

    @pytest.mark.parametrize("dtype", ["<f4", "?", "<U1"])
    def test_dtype_of_targets(self, files: Files, capsys, dtype):
        targets = files.save("z.npy", files.y.astype(dtype))
        error = self.refuse(capsys, files.logits, targets)
        assert error == f"{targets}: has dtype {np.dtype(dtype)}, expected integer classes"

    def test_lengths(self, files: Files, capsys):
        targets = files.save("z.npy", files.y[1:])
        error = self.refuse(capsys, files.logits, targets)
        assert error == f"{targets}: has shape (202,), expected (203,), that of {files.logits} (203, 7) without axis 1"
        error = self.refuse(capsys, files.logits, files.targets, "--binary")
        assert error == f"{files.targets}: has shape (203,), expected (203, 7), that of {files.logits} (203, 7)"

    def test_axis(self, files: Files, capsys):
        error = self.refuse(capsys, files.logits, files.targets, "--axis", 2)
        assert error == f"--axis is 2, expected one of the 2 axes of {files.logits}, whose shape is (203, 7)"
        scalar = files.save("z.npy", np.float32(1))
        assert "expected one of the 0 axes" in self.refuse(capsys, scalar, files.targets)

    def test_no_classes(self, files: Files, capsys):
        empty = files.save("z.npy", files.x[:, :0])
        assert "has shape (203, 0), expected at least one along axis 1" in self.refuse(capsys, empty, files.targets)
        assert "has shape (203, 0), expected at least one along axis 1" in self.refuse(capsys, empty, empty, "--binary")

    @pytest.mark.parametrize("wrong", [-1, CLASSES, 2**40])
    @pytest.mark.parametrize("chunk", [10, 1000])
    def test_target_out_of_range(self, files: Files, capsys, wrong, chunk):
        files.y[[157, 180]] = wrong
        targets = files.save("y.npy", files.y)
        error = self.refuse(capsys, files.logits, targets, "--chunk-rows", chunk)
        assert error == f"{targets}: target[157] is {wrong}, expected a class in [0, 7) or the ignored -100"

    def test_target_out_of_range_in_several_axes(self, files: Files, capsys):
        x, y = files.x[:200].reshape(10, 20, CLASSES), np.zeros((10, 20), np.int8)
        y[7, 13] = 100
        logits, targets = files.save("x3.npy", x), files.save("y3.npy", np.asfortranarray(y))
        error = self.refuse(capsys, logits, targets)
        assert error == f"{targets}: target[7, 13] is 100, expected a class in [0, 7) or the ignored -100"

    def test_outputs(self, files: Files, capsys):
        nowhere = files.folder / "no" / "out.npz"
        run = [capsys, files.logits, files.targets]
        assert self.refuse(*run, "-o", nowhere) == f"{nowhere}: cannot be written: No such file or directory"
        assert self.refuse(*run, "--metrics", nowhere) == f"{nowhere}: cannot be written: No such file or directory"
        assert "expected a name that ends in .npz or .npy" in self.refuse(*run, "-o", "out.csv")
        assert self.refuse(*run, "-o", files.logits) == f"--output {files.logits}: is the same file as LOGITS"
        same = f"{files.folder}/../{files.folder.name}/y.npy"
        assert self.refuse(*run, "-o", same) == f"--output {same}: is the same file as TARGETS"
        assert self.refuse(*run, "--metrics", files.out) == f"--metrics {files.out}: is the same file as --output"
        (files.folder / "hard.npy").hardlink_to(files.logits)
        link = files.folder / "hard.npy"
        assert self.refuse(*run, "-o", link) == f"--output {link}: is the same file as LOGITS"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--device", "cuda"], "device is 'cuda', which cannot serve"),
            (["--device", "tpu"], "device is 'tpu', expected one of"),
            (["--bins", "0"], "argument --bins: '0' given, expected an integer of at least 1"),
            (["--top-k", "1,x"], "argument --top-k: 'x' given, expected an integer of at least 1"),
            (["--chunk-rows", "-3"], "argument --chunk-rows: '-3' given, expected an integer of at least 1"),
            (["--threads", "two"], "argument --threads: 'two' given"),
            (["--axis", "last"], "argument --axis: invalid int value: 'last'"),
            (["--dtype", "float8"], "argument --dtype: invalid choice"),
            (["--threshold", "0.5"], "--threshold does not go without --binary"),
            (["--binary", "--ignore-index", "3"], "--ignore-index does not go with --binary"),
            (["--nonsense"], "unrecognized arguments: --nonsense"),
        ],
    )
    def test_options(self, files: Files, capsys, no_card, options, message):
        assert self.refuse(capsys, files.logits, files.targets, *options).startswith(message)

    def test_threshold(self, files: Files, capsys):
        y = files.save("yb.npy", files.x > 0)
        error = self.refuse(capsys, files.logits, y, "--binary", "--threshold", "1.5")
        assert error.startswith("threshold is 1.5, expected a number in [0, 1]")


def test_other_refusals(capsys, no_card):
    assert error_of(capsys).startswith("the following arguments are required: COMMAND")
    assert "invalid choice: 'nonsense'" in error_of(capsys, "nonsense")
    assert "required: TARGETS" in error_of(capsys, "score", "x.npy")
    assert "device is 'cuda'" in error_of(capsys, "demo", "--device", "cuda")


def test_out_of_memory(files: Files, capsys, monkeypatch):
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(fl, "evaluate", exhausted)
    assert error_of(capsys, "score", files.logits, files.targets).startswith("not enough memory; --chunk-rows")
