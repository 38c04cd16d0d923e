import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from firstspike.cli import app, main


def run(*arguments):
    """The command in a process of its own: what a user sees, and the exit code."""
    command = [sys.executable, "-m", "firstspike", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_loads_no_torch():
    code = "import sys\nfrom firstspike.cli import main\nsys.argv = ['firstspike', '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nprint('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_configs_are_listed_and_printed():
    listed = CliRunner().invoke(app, ["configs"]).output
    assert {line.split()[0] for line in listed.splitlines()} >= {"bars", "yin_yang"}
    assert "kind: yin_yang" in CliRunner().invoke(app, ["configs", "yin_yang"]).output


def test_train_evaluate_plot(tmp_path):
    out = tmp_path / "run"
    trained = run(
        "train", "bars", "--out", out, "--set", "training.epochs=3", "--dtype", "float64", "--seed", "7", "-q"
    )
    assert trained.returncode == 0, trained.stderr
    shown = re.search(r"test accuracy (\S+) \+-", trained.stdout)
    assert shown is not None
    text = (out / "config.yaml").read_text()
    assert "dtype: float64" in text
    assert "seed: 7" in text
    tested = run("evaluate", out)
    assert f"test accuracy {shown[1]} +-" in tested.stdout
    drawn = run("plot", out, "confusion", "--format", "pdf")
    assert drawn.stdout.strip() == str(out / "figures" / "confusion.pdf")
    assert (out / "figures" / "confusion.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing"], "no such file or shipped config"),
        (["train", "bars", "--set", "network[1].size=4"], "the data has 3 classes"),
        (["train", "bars", "--set", "neuron.tau_syn=-1"], "neuron.tau_syn: should be greater than 0"),
        (["train", "bars", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["evaluate", "nowhere"], "is no run"),
        (["resume", "nowhere"], "is no run"),
        (["plot", "nowhere"], "no run"),
        (["configs", "nothing"], "no such config"),
        (["train", "bars", "--nonsense"], "No such option"),
    ],
)
def test_bad_input_is_one_message(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["firstspike", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())
