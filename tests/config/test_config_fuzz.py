"""Configs that went wrong: whatever is done to one, it is read, or refused with the file and the line.

Seeded and small. A longer run, with its counts::

    FIRSTSPIKE_FUZZ=20000 pytest -s tests/config/test_config_fuzz.py
"""

import collections
import os
import random
import re
import sys

import pytest
import yaml

from firstspike.config import ConfigError, load_config
from firstspike.configs import shipped_configs

MUTANTS = int(os.environ.get("FIRSTSPIKE_FUZZ", "300"))
TEXTS = [file.read_text("utf-8") for _, file in sorted(shipped_configs().items())]
KEYS = sorted({word for text in TEXTS for word in re.findall(r"([a-z_]+):", text)})
LONG = ["9" * 5000, "-" + "9" * 5000, "1." + "0" * 5000, "[" * 3000, "{" * 3000, "x" * 3000, "9" * 30]
VALUES = [
    *("0", "-1", "1", "3.5", "1e3", "1e999", "-1e-999", ".inf", "-.inf", ".nan", "0x_", "0x1F", "017", "1_000", "1:30"),
    *("1000000", "1000000000000", "2001-99-99", "2001-01-01", "~", "null", "true", "no", "text", "'1'", "'0.5'", "'"),
    *(
        '"',
        "=",
        "<<",
        "é",
        "日本",
        "[]",
        "{}",
        "[[]]",
        "[1]",
        "]",
        "}",
        "|",
        "*a",
        "---",
        "...",
        "@",
        "`",
        "! x",
        "!x y",
    ),
    *('"\\e[31m"', '"a\\nb"', "!!bool x", '!!int ""', '!!float ""', "!!timestamp x", "!!map [a]", "{kind: [1]}", "? a"),
    *("!!python/name:os.system", "[a, b]", "{a: 1}", "{kind: lif}", "{kind: 3}", "{1: 2}", "{[a]: b}", "%YAML 1.1"),
    *("&a 1", "&a [*a]", "{<<: {a: 1}}", "{a: 1, a: 2}", "- - - 1", ">-\n  x", "# comment", "", "\t", "\0", "\x07"),
    *("\u2028", "\ufeff", *LONG),
]
LETTERS = [*" \t\n:-[]{},#&*!|>'\"%@`?~.0129ex_\0\x85\ufeff\ud800é", "\n  ", "\n- ", ": ", " #"]
PLACES = [
    *(
        "",
        "²",
        "data",
        "network",
        "network[0]",
        "network[99].out_features",
        "network.out_features",
        "data[0]",
        "[0]",
        "a..b",
        "x y",
    ),
    *("training.epochs.x", "substrate.kind", "a" * 3000, "a." * 3000 + "a", f"network[{'9' * 5000}]", "loss.a[0].b"),
]


def mutated(text, source):
    """The text of a config with something done to it."""
    lines = text.splitlines(keepends=True)
    here, there, place = source.randrange(len(lines)), source.randrange(len(lines)), source.randrange(len(text))
    match source.randrange(11):
        case 0:
            del lines[here]
        case 1:
            lines.insert(there, lines[here])
        case 2:
            lines[here], lines[there] = lines[there], lines[here]
        case 3:
            lines[here] = source.choice(["  ", " ", "- ", "\t"]) + lines[here]
        case 4:
            lines[here] = lines[here].replace("  ", "", 1)
        case 5:
            return replaced(text, r"(?<=: )[^,{}\[\]#\n]+", source.choice(VALUES), source)
        case 6:
            return replaced(text, r"[a-z_]+(?=:)", source.choice([*KEYS, "<<", "3", "", "x y", "? x"]), source)
        case 7:
            return text[:place] + source.choice(LETTERS) + text[place:]
        case 8:
            return text[:place] + text[place + source.randrange(1, 20) :]
        case 9:
            return text[:place]
        case 10:
            return text[:place] + source.choice(VALUES) + text[place:]
    return "".join(lines)


def replaced(text, pattern, new, source):
    """The text with one of the places that fit a pattern replaced."""
    start, end = source.choice([match.span() for match in re.finditer(pattern, text)] or [(0, 0)])
    return text[:start] + new + text[end:]


def restructured(text, source):
    """The same with something done to what the text says; it is YAML as before."""
    raw = yaml.safe_load(text)
    _, parent, key = somewhere(raw, source)
    match source.randrange(3):
        case 0:
            del parent[key]
        case 1:
            few = [
                None,
                True,
                -1,
                0,
                1e9,
                10**40,
                "x",
                [],
                {},
                [1, 2],
                {"kind": "x"},
                {"kind": "lif", "out_features": 2},
            ]
            parent[key] = source.choice([*few, float("nan")])
        case 2 if isinstance(parent, dict):
            parent[source.choice([*KEYS, "x"])] = source.choice([1, "x", None, [], {}])
        case _:
            parent += [parent[key]] * 2
    return yaml.safe_dump(raw, sort_keys=False, default_flow_style=source.random() < 0.2)


def somewhere(raw, source):
    """A value at any depth: its key for ``--set``, and where it is."""
    path, parent = "", raw
    while True:
        key = source.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        path += f"[{key}]" if isinstance(parent, list) else f".{key}"
        if not isinstance(parent[key], dict | list) or not parent[key] or source.random() < 0.3:
            return path.removeprefix("."), parent, key
        parent = parent[key]


def setting(text, source):
    """One for ``--set``, most often of a value that the config has."""
    if source.random() < 0.2:
        return source.choice(PLACES) + source.choice(["=", "=", ""]) + source.choice(VALUES)
    path, parent, key = somewhere(yaml.safe_load(text), source)
    same = yaml.safe_dump(parent[key], default_flow_style=True).removesuffix("...\n").strip()
    return f"{path}={source.choice([same, '1', '0.5'] if source.random() < 0.6 else VALUES)}"


def mutant(kind, number):
    """A text, and settings for ``--set``."""
    source = random.Random(f"{kind} {number}")
    text = source.choice(TEXTS)
    if kind == "settings":
        return text, [setting(text, source) for _ in range(source.choice([1, 1, 2, 3]))]
    if kind == "structure":
        return restructured(text, source), []
    for _ in range(source.choice([1, 1, 1, 2, 5])):
        text = mutated(text or "x", source)
    return text, []


def has_its_line(text, line):
    """Whether an error names the line. A file that is no mapping, and what is missing at its top, have none."""
    none = r"line \d+, column \d+: |must be a mapping|\w+: is missing"
    return line is not None or re.match(none, text) is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "structure", "settings"])
def test_a_mutant_is_read_or_refused_with_its_line(tmp_path, kind):
    file, again = tmp_path / "config.yaml", tmp_path / "again.yaml"
    counts = collections.Counter()
    for number in range(MUTANTS // 3):
        text, settings = mutant(kind, number)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        config = refused = None
        try:
            config = load_config(file, settings)
        except ConfigError as error:
            refused = error
        counts["read" if refused is None else "refused"] += 1
        if refused is None:
            again.write_text(config.to_yaml(), encoding="utf-8")
            assert load_config(again) == config
            continue
        assert str(refused).startswith(f"{file}: ")
        assert len(refused.errors) == len(refused.lines) > 0
        for error, line in zip(refused.errors, refused.lines, strict=True):
            assert error.isprintable()
            assert len(error) < 1000
            assert settings or has_its_line(error, line), error
    sys.stdout.write(f"{kind}: {dict(counts)}\n")  # with -s
    assert min(counts["read"], counts["refused"]) > MUTANTS // 50
