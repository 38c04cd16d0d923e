"""What README.md shows works, pasted block by block into a new shell."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)

# What would take minutes is replaced: the virtual environment is this one, and pip and pytest only note how they are
# called. Everything else runs as it is.
SCRIPTS = {
    "python3": f"""#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && echo 'export PATH="$PWD/tools:$PATH"' > "$3/bin/activate"
else exec "{sys.executable}" "$@"; fi
""",
    "tools/pip": '#!/bin/sh\necho pip "$@" >> called.txt\n',
    "tools/pytest": '#!/bin/sh\necho pytest "$@" >> called.txt\n',
    "tools/python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
    "tools/firstspike": f'#!/bin/sh\nexec "{sys.executable}" -m firstspike "$@"\n',
}


def as_pasted(language, text):
    """What somebody types to run a block."""
    return text if language == "bash" else f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs a Unix shell")
def test_all_blocks_in_order(tmp_path):
    for name, script in SCRIPTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(script, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{tmp_path}:/usr/bin:/bin"  # nothing of the environment of this test is on it
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "agg"}
    operator, install, *others = BLOCKS  # the first block is to be read first, and runs once firstspike is installed
    in_order = [block for block in (install, operator, *others) if block[0] in ("bash", "python")]
    commands = "set -e\n" + "".join(as_pasted(*block) for block in in_order)
    done = subprocess.run(
        ["bash", "-s"], input=commands, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder: runs/") == 2
    assert float(re.findall(r"^test accuracy ([0-9.]+)$", done.stdout, re.MULTILINE)[0]) > 0.9
    *_, shown = (text for language, text in BLOCKS if language == "text")
    accuracy, _, figures, folder = shown.splitlines()  # and what was published
    form = re.sub(r"\d+\\\.\d+", r"[\\d.]+", re.escape(accuracy)).replace(r"\.\.\.", ".*")
    found = re.search(form, done.stdout)
    assert found
    assert float(re.findall(r"test accuracy ([\d.]+)", found[0])[0]) > 97  # it varies with the processor
    assert f"{figures}\n{folder}\n" in done.stdout
    classes = (tmp_path / "new_classes.csv").read_text().splitlines()
    assert len(classes) == len((ROOT / "examples" / "bars.csv").read_text().splitlines())
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
    called = (tmp_path / "called.txt").read_text().splitlines()
    assert [call.split()[0] for call in called] == ["pip", "pip", "pytest"]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"\[(\w+)\]", "".join(called))) <= known.keys()


def test_it_keeps_its_promises():
    languages = [language for language, _ in BLOCKS]
    assert languages == ["python", "bash", "text", "python", "bash", "bash"]
    operator, training = (text for language, text in BLOCKS if language == "python")
    assert operator.count("\n") == 7  # four lines after the imports
    assert sum(bool(line) for line in training.splitlines()) <= 11
    yaml = BLOCKS[4][1].split("<<'END'\n")[1].split("END\n")[0]
    assert len(yaml.splitlines()) == 9
    assert README.count("\n") <= 130


def test_the_operator_gives_what_the_comments_say():
    names = {}
    exec(BLOCKS[0][1], names)
    said = [float(x) for x in re.findall(r"-?\d\.\d{4}", BLOCKS[0][1])]
    assert said == pytest.approx([names["out"].item(), *names["weight"].grad[0].tolist()], abs=1e-4)


def test_ci_runs_the_test_command_of_the_readme():
    command = README.split("## Run the tests")[1].split("```bash\n")[1].split("\n```")[0]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
