"""``fusedloss bench``: what it prints and writes, and what it refuses."""

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_files import child, contents, error_of

import fusedloss as fl
from fusedloss.bench import peers
from fusedloss.bench.peers import numpy as numpy_peer
from fusedloss.bench.suite import Result, Timing
from fusedloss.cli import main

SMALL = ["--shapes", "32x10", "--rounds", "2"]


def run(*options: object) -> int:
    return main(["bench", *SMALL, *map(str, options)])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


class TestResults:
    def test_a_table_and_the_same_as_json(self, tmp_path, capsys):
        assert run("--against", "numpy,scipy", "--json", tmp_path / "r.json") == 0
        out, err = capsys.readouterr()
        assert err == ""
        told = read(tmp_path / "r.json")
        assert list(told) == ["date", "machine", "versions", "rounds", "results"]
        assert told["rounds"] == 2
        assert told["machine"]["threads"] == fl.get_num_threads()
        assert told["versions"]["numpy"] == np.__version__
        assert [each["case"] for each in told["results"]] == ["loss", "gradient", "buffer", "in-place", "evaluate"]
        lines = [line for line in out.splitlines() if "expect noise" not in line]
        assert lines[3] == "cross_entropy, 32x10 float32"
        cells = [(each["case"], who, it) for each in told["results"] for who, it in each["contenders"].items()]
        assert len(lines) == 5 + len(cells) == 5 + 3 * 3 + 2
        for line, (_, who, it) in zip(lines[5:], cells, strict=True):
            assert f" {who} " in line
            assert f" {it['seconds'] * 1e3:.4g} " in line
            assert line.endswith(("faster", "slower")) == (who != "fusedloss")

    def test_json_is_of_the_types_that_it_says(self, tmp_path):
        path = tmp_path / "r.json"
        arguments = [
            "--losses",
            "soft",
            "--cases",
            "loss,buffer",
            "--dtype",
            "float64",
            "--against",
            "numpy",
            "--quiet",
        ]
        assert run(*arguments, "--shapes", "32x10,4096x32", "--json", path) == 0
        results = read(path)["results"]
        assert [(each["shape"], each["case"], each["dtype"]) for each in results] == [
            ([rows, classes], case, "float64")
            for rows, classes in ((32, 10), (4096, 32))
            for case in ("loss", "buffer")
        ]
        for each in results:
            assert set(each) == set(Result.__annotations__)
            large = each["shape"] == [4096, 32]
            assert set(each["ceilings"]) == ({"read", "copy"} if large else set())
            for timing in each["contenders"].values():
                assert set(timing) == set(Timing.__annotations__)
                assert 0 < timing["quartiles"][0] <= timing["seconds"] <= timing["quartiles"][1]
                assert (timing["share_of_ceiling"] is not None) == large
                moved = timing["gigabytes_per_second"] * timing["seconds"] * 1e9
                assert moved == pytest.approx(each["bytes_moved"])

    def test_a_busy_computer_is_said_to_be(self, monkeypatch, capsys):
        for load, said in ((0.0, False), (99.0, True)):
            monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0), raising=False)
            assert run("--cases", "loss", "--against", "none") == 0
            assert ("busy (load 99.0): expect noise" in capsys.readouterr().out) == said

    def test_default_peers_are_those_installed(self, monkeypatch, capsys):
        monkeypatch.setattr(peers, "find_spec", lambda name: None if name != "numpy" else object())
        assert run("--cases", "loss") == 0
        out = capsys.readouterr().out
        assert " numpy " in out
        assert " torch " not in out

    def test_the_library_alone(self, capsys):
        assert run("--cases", "loss,evaluate", "--losses", "hard,binary", "--against", "none") == 0
        out = capsys.readouterr().out
        assert "binary_cross_entropy, 32x10 float32" in out
        assert "faster" not in out

    def test_threads(self, tmp_path):
        assert (
            run("--threads", 3, "--cases", "loss", "--against", "none", "--quiet", "--json", tmp_path / "r.json") == 0
        )
        assert fl.get_num_threads() == read(tmp_path / "r.json")["machine"]["threads"] == 3

    def test_quiet(self, capsys):
        assert run("--cases", "loss", "--against", "none", "--quiet") == 0
        assert capsys.readouterr() == ("", "")

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
    def test_progress_on_a_terminal(self):
        import fcntl
        import termios

        terminal, end = os.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        with child("bench", *SMALL, "--cases", "loss", "--against", "numpy", stderr=end) as process:
            out, _ = process.communicate(timeout=60)
        os.close(end)
        shown = os.read(terminal, 1 << 16).decode()
        os.close(terminal)
        assert process.returncode == 0
        assert "2/2" in shown
        assert "cross_entropy, 32x10 float32" in out


REFUSED = {
    ("--against", "torch,pytorch"): "argument --against: 'pytorch' given, expected some of torch,torch.compile,jax",
    ("--against", ""): "argument --against: '' given, expected some of torch,",
    ("--against", "none,numpy"): "argument --against: 'none' given, expected some of torch,",
    ("--cases", "train"): "argument --cases: 'train' given, expected some of loss,gradient,buffer,in-place,evaluate",
    (
        "--losses",
        "hinge",
    ): "argument --losses: 'hinge' given, expected some of hard,soft,smoothing,z-loss,softcap,b",
    ("--dtype", "float8"): "argument --dtype: 'float8' given, expected some of float32,float64,float16,bfloat16",
    ("--shapes", "32"): "argument --shapes: '32' given, expected two or more lengths such as 32768x1000",
    ("--shapes", "32x10,32x-1"): "argument --shapes: '32x-1' given, expected two or more lengths",
    ("--shapes", "32x0"): "argument --shapes: '32x0' given, expected two or more lengths",
    ("--shapes", "32X10"): "argument --shapes: '32X10' given, expected two or more lengths",
    ("--shapes", "9999999x9999999"): "argument --shapes: '9999999x9999999' given, expected two or more lengths",
    ("--rounds", "0"): "argument --rounds: '0' given, expected an integer of at least 1",
    ("--threads", "many"): "argument --threads: 'many' given, expected an integer of at least 1",
    ("--cases", "evaluate", "--losses", "soft"): "nothing to time: evaluate goes with the losses hard and binary alone",
    ("--shapes", "1000000x1000000", "--quiet"): "1000000x1000000 float32 takes 8e+03 GB with its gradient, but this",
}


class TestRefusals:
    @pytest.mark.parametrize("options", REFUSED, ids=" ".join)
    def test_options(self, capsys, options):
        assert error_of(capsys, "bench", *options).startswith(REFUSED[options])

    def test_a_peer_that_is_missing(self, capsys, monkeypatch):
        monkeypatch.setitem(peers.PEERS, "jax", peers.PEERS["jax"]._replace(packages=("jax_of_mars",)))
        told = error_of(capsys, "bench", "--against", "jax")
        assert told.startswith("jax needs jax_of_mars, not installed here; these can be compared: torch, ")

    def test_no_numba(self, capsys, monkeypatch):
        device = fl.devices()["cpu"]._replace(available=False, reason="numba is not installed")
        monkeypatch.setattr(fl, "devices", lambda: {"cpu": device})
        told = error_of(capsys, "bench")
        assert told == "bench compares the device 'cpu', which cannot serve: numba is not installed"

    def test_a_file_that_cannot_be_written(self, capsys, tmp_path):
        told = error_of(capsys, "bench", "--json", tmp_path / "nowhere" / "r.json")
        assert told == f"{tmp_path}/nowhere/r.json: cannot be written: No such file or directory"

    @pytest.mark.parametrize("wrong", ["loss", "gradient", "evaluate"])
    def test_a_peer_that_answers_wrong(self, capsys, monkeypatch, tmp_path, wrong):
        name = "evaluate" if wrong == "evaluate" else "cross_entropy"
        right = getattr(numpy_peer, name)

        def err(*args: Any, **options: Any) -> tuple[Any, ...]:
            answer = list(right(*args, **options))
            answer[-1] = answer[-1] * np.float32(1.001)
            return tuple(answer)

        monkeypatch.setattr(numpy_peer, name, err)
        (tmp_path / "r.json").write_text("older")
        options = ["--cases", wrong, "--against", "numpy", "--quiet", "--json", tmp_path / "r.json"]
        told = error_of(capsys, "bench", *SMALL, *options)
        assert told.startswith(f"numpy answers {'entropy' if wrong == 'evaluate' else wrong}")
        assert f" to {wrong} of hard, 32x10 float32; expected " in told
        assert contents(tmp_path) == {"r.json": b"older"}

    def test_a_peer_that_fails(self, capsys, monkeypatch):
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("no such instruction\non this processor")

        monkeypatch.setattr(numpy_peer, "cross_entropy", fail)
        told = error_of(capsys, "bench", *SMALL, "--cases", "loss", "--against", "numpy", "--quiet")
        assert told == "numpy fails at loss of hard, 32x10 float32: RuntimeError: no such instruction"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupt_leaves_everything_as_it_was(tmp_path: Path, number):
    path = tmp_path / "r.json"
    path.write_text("older")
    with child("bench", *SMALL[:2], "--rounds", 10**6, "--against", "none", "--json", path) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.stdout.readline()  # the first words: it has begun
        time.sleep(0.5)
        process.send_signal(getattr(signal, number))
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert contents(tmp_path) == {"r.json": b"older"}
