"""What becomes of results: tables, a page, a chart; and the programs that measure, on arrays of no size."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import fusedloss as fl
from bench import cold, publish, record, scaling, selection, tables, targets
from bench.chart import chart
from bench.limits import limit
from fusedloss.bench import machine, suite
from fusedloss.bench.cases import Task
from fusedloss.bench.inputs import Inputs
from fusedloss.bench.peers import OURS, contenders

ROOT = Path(__file__).resolve().parents[1]
SVG = "{http://www.w3.org/2000/svg}"
SECONDS = {OURS: 2.0, "torch": 9.0, "jax": 1.0, "numpy": 30.0}


def result(task: Task) -> suite.Result:
    """A result whose times are made up: jax wins, the others lose."""
    whos = [who for who in contenders(task, SECONDS.keys() - {OURS}) if who in SECONDS]
    seconds = {who: [SECONDS[who]] for who in sorted(whos)} | {"read": [1.0], "copy": [1.5]}
    return suite.result(task, Inputs(task.loss, (2, 2), task.dtype), seconds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of results, and a README that awaits them."""
    here = machine.about()
    speed = {**here, "rounds": 1, "results": [result(task) for task in selection.SUITE]}
    row = {"target": "torch / ours", "what": "9x9 loss", "least": 2.0, "aim": 3.0, "reached": 2.5, "met": "least"}
    kept: dict[str, list[dict[str, Any]]] = {
        "targets": [row, {**row, "reached": 1.5, "met": "no"}, {**row, "reached": 3.5, "met": "aim"}],
        "memory": [{"contender": who, "case": "loss", "of_logits": 1.25} for who in SECONDS],
        "scaling": [{"shape": [9, 9], "case": "loss", "threads": n, "seconds": 1 / n, "times_one": n} for n in (1, 2)],
        "cold": [{"contender": OURS, "state": "cached", "import": 0.1, "first_call": 0.2, "next_call": 3e-4}],
    }
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    for name, rows in kept.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps({**here, "shape": [4, 4], "dtype": "float32", "results": rows})
        )
    marked = (f"{begin}\nolder\n{end}" for begin, end in (publish.MARKS, publish.CARD_MARKS))
    (tmp_path / "TOP.md").write_text("\n".join(["above", *marked, "below\n"]))
    return tmp_path


class TestPublish:
    def test_the_readme(self, folder):
        publish.publish(folder / "TOP.md", folder)
        text = (folder / "TOP.md").read_text()
        assert text.startswith(f"above\n{publish.MARKS[0]}\n## Speed\n")
        assert text.endswith(f"\n{publish.CARD_MARKS[1]}\nbelow\n")
        assert "older" not in text
        assert "| 32768 × 1000 | 50% | 75% | 4.5× / 4.5× | ▼ 0.50× / ▼ 0.50× | 15.0× / 15.0× |" in text
        publish.publish(folder / "TOP.md", folder)
        assert (folder / "TOP.md").read_text() == text

    def test_the_page(self, folder):
        publish.publish(folder / "TOP.md", folder)
        text = (folder / "README.md").read_text()
        for line in (
            "| torch / ours | 9x9 loss | 2 | 3 | 2.50 ✓ |", "| torch / ours | 9x9 loss | 2 | 3 | 1.50 ▼ |",
            "| torch / ours | 9x9 loss | 2 | 3 | 3.50 ✓✓ |", "| loss | 1.25 | 1.25 | 1.25 | 1.25 |",
            "| 9 × 9 | loss | 1000.00 ms (1.00×) | 500.00 ms (2.00×) |", "| fusedloss, cached | 0.10 | 0.20 | 0.300 |",
            "### binary_cross_entropy, 8192 × 4096 float32", "### cross_entropy, 32768 × 1000 bfloat16",
        ):  # fmt: skip
            assert line in text
        assert text.count("\n| ") > sum(len(each["contenders"]) for each in record.load("speed", folder)["results"])

    def test_peers_of_another_run_stand_beside(self, folder):
        told = record.load("speed", folder)
        others = json.loads(json.dumps(told).replace('"jax"', '"tensorflow"'))
        merged = publish.beside(told, others)
        assert list(merged[0]["contenders"]) == [*told["results"][0]["contenders"], "tensorflow"]
        assert merged[0]["contenders"][OURS] is told["results"][0]["contenders"][OURS]
        assert publish.beside(told, None) == told["results"]

    def test_refusals(self, folder):
        (folder / "TOP.md").write_text("no marks")
        with pytest.raises(SystemExit, match="the README has no part between"):
            publish.publish(folder / "TOP.md", folder)
        (folder / "speed.json").unlink()
        with pytest.raises(SystemExit, match=r"speed\.json is missing; `make bench` measures it"):
            publish.publish(folder / "TOP.md", folder)

    def test_a_card(self, folder):
        publish.publish(folder / "TOP.md", folder)
        assert "Not yet measured" in (folder / "TOP.md").read_text()
        row = {"what": "9 × 9 bfloat16", "least": 0.5, "aim": 0.9, "reached": 0.7, "met": "least"}
        rows = [{**row, "target": target} for target in (*tables.OF_COPY[:2], "torch / ours, one call")]
        told = {"date": "2030-01-02T", "device": {"name": "Card", "driver": "1.2"}, "versions": {"torch": "9"}}
        (folder / "gpu.json").write_text(json.dumps({**told, "results": rows}))
        publish.publish(folder / "TOP.md", folder)
        for text in ((folder / "TOP.md").read_text(), (folder / "README.md").read_text()):
            assert "| torch / ours, one call | 9 × 9 bfloat16 | 0.5 | 0.9 | 0.70 ✓ |" in text
            assert "Card, driver 1.2; torch 9; 2030-01-02" in text.replace("\n", " ")
        assert "| 9 × 9 bfloat16 | 0.70 ✓ | 0.70 ✓ | – | – |" in (folder / "TOP.md").read_text()

    def test_the_chart(self, folder):
        results = record.load("speed", folder)["results"]
        drawing = ET.fromstring(chart(results))
        bars = drawing.findall(f"{SVG}rect[@height='10']")
        shapes = len({tuple(each["shape"]) for each in tables.plain(results) if each["ceilings"]})
        assert len(bars) == shapes * (2 * len(SECONDS.keys() - {"numpy"}) + 1)
        assert sum(bar.get("class") == "ours" for bar in bars) == shapes * 3
        words = [text.text for text in drawing.iter(f"{SVG}text")]
        assert words.count("32768 × 1000") == 2
        width, height = (float(drawing.get(side)) for side in ("width", "height"))
        for text in drawing.iter(f"{SVG}text"):
            assert 0 < float(text.get("x")) <= width - 24
            assert 0 < float(text.get("y")) < height
        assert "prefers-color-scheme: dark" in drawing.find(f"{SVG}style").text

    def test_what_is_published_is_what_was_measured(self, tmp_path):
        """The README, the page and the chart are those that the stored results make."""
        for name in (
            "README.md",
            "speed.svg",
            *(f"{name}.json" for name in ("speed", *publish.PARTS, "tensorflow", "gpu")),
        ):
            if (record.FOLDER / name).exists():
                (tmp_path / name).write_bytes((record.FOLDER / name).read_bytes())
        readme = (ROOT / "README.md").read_text("utf-8")
        (tmp_path / "TOP.md").write_text(readme, "utf-8")
        publish.publish(tmp_path / "TOP.md", tmp_path)
        assert (tmp_path / "TOP.md").read_text("utf-8") == readme
        for name in ("README.md", "speed.svg"):
            assert (tmp_path / name).read_text("utf-8") == (record.FOLDER / name).read_text("utf-8")


class TestTargets:
    def test_rows(self, capsys, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["targets", "--list"])
        targets.main()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(set(lines))
        for words in ("fastest compiler / ours         65536x10 loss", "class axis 1 / read             16x21x256x256"):
            assert any(" ".join(words.split()) in " ".join(line.split()) for line in lines)

    def test_some(self, capsys, monkeypatch, tmp_path):
        path = tmp_path / "t.json"
        options = ["--only", "one call 32x10 loss", "--rounds", "2", "--json", str(path)]
        monkeypatch.setattr(sys, "argv", ["targets", *options])
        targets.main()
        (row,) = json.loads(path.read_text())["results"]
        seconds = row["seconds"]
        assert row["reached"] == pytest.approx(seconds["torch"] / seconds["fusedloss"], rel=9)
        assert row["met"] == ("aim" if row["reached"] >= 3 else "least" if row["reached"] >= 1 else "no")
        assert "torch / ours, one call" in capsys.readouterr().out

    @pytest.mark.parametrize(("reached", "met"), [(0.9, "no"), (1.0, "least"), (3.0, "aim")])
    def test_the_fastest_of_some_times_a_factor(self, monkeypatch, reached, met):
        monkeypatch.setattr(targets, "take_turns", lambda *_: {"a": [4.0], "b": [2 * reached], "c": [1.0]})
        row = targets.Aim("t", "w", 1.0, 3.0, ("a", "b") if reached < 2 else ("b",), "c", 0.5)
        (told,) = targets.measured(targets.Group([row], {}), 1)
        assert (told["reached"], told["met"]) == (pytest.approx(reached), met)

    def test_what_holds_a_row_back_is_told(self):
        page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
        for aim in (aim for group in targets.groups() for aim in group.aims):
            row = aim._asdict()
            assert f"- **{limit(row | {'met': 'no'}).capitalize()}.** " in page
            assert limit(row | {"met": "least"}) == ""


class TestScaling:
    def test_counts(self):
        assert [scaling.counts(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]

    def test_every_number_of_threads(self):
        fl.set_num_threads(2)
        rows = scaling.scaled((8192, 40))
        assert fl.get_num_threads() == 2
        cases = {(row["case"], row["threads"]) for row in rows}
        assert cases == {(case, n) for case in ("loss", "buffer", "evaluate", "read", "copy") for n in (1, 2)}
        assert {row["times_one"] for row in rows if row["threads"] == 1} == {1.0}


class TestFreshProcesses:
    @pytest.mark.parametrize("who", [OURS, "torch"])  # another framework is a line of ``cold``, and slow to import
    def test_first_calls(self, monkeypatch, who):
        monkeypatch.setattr(cold, "REPEATS", 1)
        rows = cold.first_call(who)
        assert [row["state"] for row in rows] == (["uncached", "cached"] if who == OURS else [""])
        assert all(row[name] > 0 for row in rows for name in ("import", "first_call", "next_call"))

    def test_a_process_that_fails(self):
        with pytest.raises(SystemExit, match="(?s)failed:.*of mars"):
            cold.told("-c", "raise ValueError('of mars')")

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    @pytest.mark.parametrize(("case", "who", "least"), [("gradient", OURS, 1.0), ("loss", "numpy", 2.0)])
    def test_peak_memory(self, case, who, least):
        command = [sys.executable, "-m", "bench.memory", "--one", case, who]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert least <= json.loads(done.stdout)["of_logits"] + 0.01 < least + 0.2

    def test_the_suite_as_benchmarks(self, tmp_path):
        path = tmp_path / "r.json"
        options = [
            "--quick",
            "--rounds",
            "2",
            "--against",
            "numpy",
            "--results",
            str(path),
            "-k",
            "32x10 and not evaluate",
        ]
        command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stdout
        found = [(each["case"], list(each["contenders"])) for each in json.loads(path.read_text())["results"]]
        both = [OURS, "numpy"]
        assert found == [("loss", both), ("gradient", both), ("buffer", [OURS]), ("in-place", [OURS])]


def test_what_is_selected():
    assert len(set(selection.SUITE)) == len(selection.SUITE)
    assert {task.dtype for task in selection.SUITE} == {"float32", "float64", "float16", "bfloat16"}
    assert [task for task in selection.SUITE if selection.small(task)]
