import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_examples_run(capsys):
    training, operator = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(training, names)
    assert capsys.readouterr().out == "accuracy 1.0\n"
    assert len(training.splitlines()) <= 20
    exec(operator, names)
    shown = re.search(r"tensor\(\[\[(.*), inf\]\]\)", operator)
    assert shown is not None
    torch.testing.assert_close(names["out"].detach(), torch.tensor([[float(shown[1]), torch.inf]]), atol=1e-4, rtol=0)


def test_ci_runs_the_test_command_of_the_readme():
    command = README.split("## Run the tests")[1].split("```bash\n")[1].split("\n```")[0]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
