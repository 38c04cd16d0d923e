"""Rules of the package that no other test sees: which part may import which, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import firstspike

ROOT = Path(firstspike.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}

# A part imports itself and what stands in a row before its own; parts of one row know nothing of each other.
ROWS = [
    ["_version", "configs", "text", "torchrun"],
    ["deferred", "ranges"],
    ["signature"],
    ["neurons", "connect", "seeding"],
    ["spiketime"],
    ["layers"],
    ["losses", "data", "substrates", "fitting"],
    ["training"],
    ["config", "sklearn"],
    ["runs"],
    ["plots", "interop"],
    ["sweeps"],
    ["reports"],
    ["cli"],
]
RANK = {part: rank for rank, row in enumerate(ROWS) for part in row}
# Imports against the arrows: the file, what it imports, why.
EXCEPTIONS = {
    ("__main__.py", "cli"): "runs the command",
    ("training/trainer.py", "runs"): "Trainer.fit(folder=...) writes a run and returns it",
    ("runs/run.py", "plots"): "Run.plot, and a training ends with its pictures",
    ("runs/run.py", "reports"): "Run.report",
}


def imports(name, tree):
    """Modules of the package that a file imports, anywhere in it: at the top, in a function, for a type checker."""
    package = ["firstspike", *name.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found = [f"{module}.{alias.name}" for alias in node.names] if module == "firstspike" else [module]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        yield from (x for x in found if x.split(".")[0] == "firstspike")


def part_of(name):
    return name.split("/")[0].removesuffix(".py")


def wrong_imports():
    for name, tree in FILES.items():
        if name == "__init__.py":
            continue  # the public names
        own = part_of(name)
        for module in imports(name, tree):
            used = module.split(".")[1] if "." in module else "the package itself"
            used = "_version" if used == "__version__" else used
            allowed = used == own or RANK.get(used, 99) < RANK.get(own, -1)
            if not allowed and (name, used) not in EXCEPTIONS:
                yield f"{name} imports {used}"


def test_every_part_has_a_row():
    assert {part_of(name) for name in FILES} - {"__init__", "__main__"} == set(RANK)


def test_imports_go_one_way():
    assert list(wrong_imports()) == []


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)


def test_only_the_command_prints():
    assert [name for name, tree in FILES.items() if "print" in calls(tree)] in ([], ["cli.py"])


@pytest.mark.parametrize(
    "setter", ["set_default_dtype", "set_default_device", "set_default_tensor_type", "manual_seed_all", "seed_all"]
)
def test_nothing_sets_a_global_default(setter):
    assert [name for name, tree in FILES.items() if setter in calls(tree)] == []


def modules_after(statement):
    """Modules that are loaded in a new interpreter after a statement, and the packages that they belong to."""
    command = f"{statement}; import sys; print(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=60)
    loaded = run.stdout.split()
    return {*loaded, *(module.split(".")[0] for module in loaded)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import firstspike", {"torch", "numpy", "numba", "matplotlib", "pydantic", "typer"}),
        ("import firstspike.configs", {"torch", "numba", "matplotlib", "pydantic"}),
        ("import firstspike.cli", {"torch", "numba", "matplotlib"}),
        (
            "import firstspike; firstspike.LIFLinear",
            {"torch._dynamo", "matplotlib", "pydantic", "typer", "yaml", "sklearn"},
        ),
        (
            "import firstspike; firstspike.substrates.SUBSTRATES",
            {"matplotlib", "pydantic", "typer", "yaml", "pyNN", "nest"},
        ),
        (
            "import firstspike as fs; fs.Trainer; fs.layers.LIFLinear(3, 2)",
            {"numba", "firstspike.spiketime.cpu", "matplotlib", "typer"},
        ),
        ("import firstspike; firstspike.data.bars; firstspike.losses.LOSSES", {"matplotlib", "pydantic", "sklearn"}),
    ],
)
def test_import_loads_only_what_it_needs(statement, unwanted):
    loaded = modules_after(statement)
    assert "firstspike" in loaded
    assert not loaded & unwanted


@pytest.mark.parametrize("name", firstspike.__all__)
def test_public_names(name):
    value = getattr(firstspike, name)
    assert name == "__version__" or len(value.__doc__) > 20
    assert name in dir(firstspike)


def test_public_names_are_sorted_and_once():
    names = firstspike.__all__
    assert len(set(names)) == len(names)


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'firstspike' has no attribute 'spike'"):
        _ = firstspike.spike


def test_typed():
    assert (ROOT / "py.typed").exists()
