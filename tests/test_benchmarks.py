"""What ``benchmarks/run.py`` measures first on a GPU, on sizes for a test, and without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
CALL = """
from pathlib import Path
import gpu, torch
from sections import Settings

settings = Settings(1, "wall", torch.float32, Path())
"""


def tables(*codes, **environment):
    """Rows of the tables that these make, in a process of its own: benchmarks change torch's settings."""
    code = CALL + "".join(f"print({code}.markdown())\n" for code in codes)
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path]), **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for table in done.stdout.split("## ")[1:]:
        lines = [line for line in table.splitlines() if line.startswith("| ")]
        yield [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.slow
def test_first_on_a_gpu():
    compared, layers, trained = tables(
        "gpu.correct(settings, (2, 40, 5))", "gpu.layers(settings, ((2, 8, 4),))", "gpu.trainings(settings, epochs=1)"
    )
    assert len(compared) == 10
    assert all(row[-1] == "right" and int(row[2]) > 0 for row in compared), compared
    assert [row[:2] for row in layers] == [["2x8x4", "float32"], ["2x8x4", "TF32"]]
    assert len(trained) == 3
    name, epochs, *_, waits = trained[1]
    assert (name, epochs, waits) == ("spike trains (delayed_xor)", "1", "0 (none seen)")


@pytest.mark.triton
@pytest.mark.slow
def test_the_gpus_backend_by_the_interpreter():
    (found,) = tables("gpu.correct(settings, (1, 20, 3), backend='triton')", TRITON_INTERPRET="1")
    assert all(row[-1] == "right" for row in found), found


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    command = [sys.executable, str(FOLDER / "run.py"), "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "finds no GPU here" in done.stderr


@pytest.mark.slow
def test_a_run_replaces_its_own_tables_alone(tmp_path):
    code = (
        "import json, sys, run; from pathlib import Path; from timing import Table, machine; import torch\n"
        "run.NUMBERS = Path(sys.argv[1])\n"
        "for number, name in enumerate(['One', 'Two', 'One']):\n"
        "    table = Table('Title', ('shape', 'ratio')); table.rows.append(['1x1x1', str(number)])\n"
        "    run.save('shapes', table, machine('wall', torch.device('cpu'), name))\n"
        "found = json.loads(run.NUMBERS.read_text())\n"
        "print({run.split(',')[0]: x['shapes']['rows'][0][1] for run, x in found.items()})\n"
    )
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path / "benchmarks.json"]
    done = subprocess.run(command, env=given, cwd=FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{'One': '2', 'Two': '1'}"
