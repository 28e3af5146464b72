"""The command: what it computes and what it prints."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from cli_files import CLASSES, ROWS, Files

import fusedloss as fl
from fusedloss.cli import main

BACKENDS = ["numpy", "cpu"]  # of arrays in host memory

FIELDS = ("nll", "log_normalizer", "prediction", "confidence", "entropy", "rank", "brier")


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> Files:
    return Files(tmp_path, rng)


def same_rows(result: np.ndarray, scores: fl.Scores) -> None:
    for name in FIELDS:
        expected = getattr(scores, name)
        assert result[name].dtype == expected.dtype
        np.testing.assert_array_equal(result[name], expected, err_msg=name)


def close(metrics: dict, evaluation: fl.Evaluation | fl.BinaryEvaluation) -> None:
    for name, value in evaluation.to_dict().items():
        if isinstance(value, float):
            assert metrics[name] == pytest.approx(value, rel=1e-12), name
    assert metrics["count"] == evaluation.count
    assert len(metrics["calibration"]) == len(evaluation.calibration)


class TestScore:
    @pytest.mark.parametrize("chunk", [1, 50, 1000])
    @pytest.mark.parametrize("suffix", ["npz", "npy"])
    def test_rows_and_summary(self, files: Files, backend, chunk, suffix, capsys):
        out, metrics = files.folder / f"out.{suffix}", files.folder / "m.json"
        options = [
            "--device",
            backend,
            "--chunk-rows",
            chunk,
            "-o",
            out,
            "--metrics",
            metrics,
            "--top-k",
            "1,3",
            "--bins",
            8,
        ]
        assert main(list(map(str, ["score", files.logits, files.targets, *options]))) == 0
        same_rows(np.load(out), fl.score(files.x, files.y, device=backend))
        summary, evaluation = (
            json.loads(metrics.read_text()),
            fl.evaluate(files.x, files.y, top_k=(1, 3), bins=8, device=backend),
        )
        close(summary, evaluation)
        assert summary["top_k"] == {str(k): pytest.approx(v) for k, v in evaluation.top_k.items()}
        assert (summary["shape"], summary["version"]) == ([ROWS, CLASSES], fl.__version__)
        assert summary["gigabytes_per_second"] * summary["seconds"] * 1e9 == pytest.approx(files.x.nbytes)
        out, err = capsys.readouterr()
        assert f"{evaluation.nll:.6f}" in out
        assert f"{evaluation.top_k[3]:.6f}" in out
        assert err == ""
        assert len({len(line) for line in out.splitlines()}) == 1  # aligned

    def test_without_rows_the_summary_is_the_same(self, files: Files, backend):
        for name, more in (("a", []), ("b", ["-o", files.out])):
            arguments = [files.logits, files.targets, "--device", backend, "--metrics", files.folder / name, *more]
            assert main(list(map(str, ["score", *arguments, "--quiet"]))) == 0
        a, b = (json.loads((files.folder / name).read_text()) for name in ("a", "b"))
        assert a["nll"] == pytest.approx(b["nll"], rel=1e-13)
        assert a["calibration"] == [pytest.approx(cell) for cell in b["calibration"]]

    @pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_dtypes_and_orders(self, files: Files, dtype, order):
        x = np.asarray(files.x, dtype, order=order)
        logits = files.save("z.npy", x)
        assert (
            main(["score", str(logits), str(files.targets), "-o", str(files.out), "--chunk-rows", "20", "--quiet"]) == 0
        )
        same_rows(np.load(files.out), fl.score(x, files.y))

    @pytest.mark.parametrize("raw", [True, False])
    def test_bfloat16(self, files: Files, raw):
        x = files.x.astype(ml_dtypes.bfloat16)
        logits = files.save("b.npy", x.view(np.uint16) if raw else x)
        arguments = ["score", str(logits), str(files.targets), "-o", str(files.out), "--dtype", "bfloat16", "--quiet"]
        assert main(arguments) == 0
        same_rows(np.load(files.out), fl.score(x, files.y))

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_one_archive_for_both(self, files: Files, save, order):
        path = files.folder / "both.npz"
        save(path, logits=np.asarray(files.x, order=order), labels=files.y, other=np.arange(3))
        assert main(["score", str(path), str(path), "-o", str(files.out), "--chunk-rows", "20", "--quiet"]) == 0
        same_rows(np.load(files.out), fl.score(files.x, files.y))
        assert main(["score", f"{path}::logits", f"{path}::labels", "-o", str(files.out), "--quiet"]) == 0
        same_rows(np.load(files.out), fl.score(files.x, files.y))

    @pytest.mark.parametrize("axis", [0, 1, -1])
    @pytest.mark.parametrize("chunk", ["1", "7", "30", "1000"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_axes(self, files: Files, rng, axis, chunk, packed):
        x = rng.standard_normal((6, 5, 8)).astype(np.float32)
        y = rng.integers(0, x.shape[axis], np.delete(x.shape, axis))
        logits = files.save("x3.npy", x)
        if packed:
            logits = files.folder / "x3.npz"
            np.savez_compressed(logits, x)
        targets = files.save("y3.npy", y)
        arguments = ["score", logits, targets, "-o", files.out, "--axis", axis, "--chunk-rows", chunk, "--quiet"]
        assert main(list(map(str, arguments))) == 0
        same_rows(np.load(files.out), fl.score(x, y, axis=axis))

    def test_a_single_row_and_none(self, files: Files):
        for x, y in ((files.x[0], files.y[1]), (files.x[:0], files.y[:0]), (files.x[:1], files.y[1:2])):
            logits, targets = files.save("x1.npy", x), files.save("y1.npy", np.asarray(y))
            metrics = files.folder / "m.json"
            arguments = ["score", str(logits), str(targets), "-o", str(files.out), "--metrics", str(metrics)]
            assert main(arguments) == 0
            same_rows(np.load(files.out), fl.score(x, y))
            assert json.loads(metrics.read_text())["count"] == y.size

    def test_ignore_index_and_edges(self, files: Files):
        x, y = files.x.copy(), np.where(files.y < 0, 255, files.y).astype(np.uint8)
        x[0], x[1, 2], x[2] = np.nan, -np.inf, np.inf
        logits, targets, metrics = files.save("x2.npy", x), files.save("y2.npy", y), files.folder / "m.json"
        arguments = ["score", logits, targets, "-o", files.out, "--ignore-index", 255, "--metrics", metrics, "--quiet"]
        assert main(list(map(str, arguments))) == 0
        same_rows(np.load(files.out), fl.score(x, y, ignore_index=255))
        assert json.loads(metrics.read_text())["nll"] is None

    @pytest.mark.parametrize("shape", [(300,), (60, 5), (6, 10, 5)])
    @pytest.mark.parametrize("dtype", ["?", "<i4", "<f4", ">f8"])
    def test_binary(self, files: Files, rng, backend, shape, dtype):
        x, y = rng.standard_normal(shape).astype(np.float32), (rng.random(shape) > 0.5).astype(dtype)
        logits, targets, metrics = files.save("xb.npy", x), files.save("yb.npy", y), files.folder / "m.json"
        options = [
            "--device",
            backend,
            "--binary",
            "--threshold",
            0.3,
            "--chunk-rows",
            9,
            "--metrics",
            metrics,
            "--quiet",
        ]
        assert main(list(map(str, ["score", logits, targets, "-o", files.out, *options]))) == 0
        scores, evaluation = (
            fl.score_binary(x, y, threshold=0.3, device=backend),
            fl.evaluate_binary(x, y, threshold=0.3, device=backend),
        )
        result = np.load(files.out)
        for name in ("nll", "probability", "prediction", "brier"):
            np.testing.assert_array_equal(result[name], getattr(scores, name), err_msg=name)
        close(json.loads(metrics.read_text()), evaluation)
        assert main(list(map(str, ["score", logits, targets, *options]))) == 0
        close(json.loads(metrics.read_text()), evaluation)

    def test_threads_change_no_bit(self, files: Files):
        outputs = []
        for number in ("1", "3"):
            arguments = [
                "score",
                str(files.logits),
                str(files.targets),
                "-o",
                str(files.out),
                "--threads",
                number,
                "--quiet",
            ]
            assert main(arguments) == 0
            assert fl.get_num_threads() == int(number)
            outputs.append(files.out.read_bytes())
        assert outputs[0] == outputs[1]

    def test_quiet(self, files: Files, capsys):
        assert main(["score", str(files.logits), str(files.targets), "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")


class TestOtherCommands:
    def test_demo(self, capsys):
        assert main(["demo"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for text in ("1797 held-out images", "accuracy", "calibration error", "GB/s", "0.900-1.000"):
            assert text in out
        assert float(out.partition("top-5")[0].partition("accuracy")[2]) > 0.95

    def test_info_without_a_card(self, capsys, no_card):
        assert main(["info"]) == 0
        assert f"device cuda   {no_card}" in capsys.readouterr().out

    def test_info(self, capsys):
        assert main(["info"]) == 0
        out = capsys.readouterr().out
        items = {line[:13].strip(): line[13:].strip() for line in out.splitlines()}
        assert items["fusedloss"] == fl.__version__
        assert items["numpy"] == np.__version__
        assert items["threads"] == str(fl.get_num_threads())
        assert items["device numpy"] == "available"
        assert items["device cuda"] == fl.devices()["cuda"].name
        assert items["processor"]
        assert items["cache"]

    def test_warmup(self, capsys):
        assert main(["warmup", "--device", "numpy"]) == 0
        out = capsys.readouterr().out
        assert [line.split()[0] for line in out.splitlines()] == ["float32", "float64", "float16", "bfloat16", "cache"]
