"""Damage to run folders, drawn at random: what disks, other programs, other versions and attackers may leave behind."""

import hashlib
import json
import math
import os
import pickle
import shutil

import torch
from safetensors.torch import load_file, save

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"
ODD_NAMES = ("x", "epoch_²", "epoch_99999999999999999999", "best_", "epoch_0001_batch_", "_", "backup of epoch_0002")


def sign(checkpoint):
    """Make the manifest of a checkpoint say that its files are as they were written."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    for name in (WEIGHTS, STATE):
        manifest["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


def write_state(checkpoint, state):
    """Put another state into a checkpoint, with the right checksum."""
    torch.save(state, checkpoint / STATE)
    sign(checkpoint)


def read_state(checkpoint):
    """The state in a checkpoint."""
    return torch.load(checkpoint / STATE, weights_only=True)


def write_weights(checkpoint, weights):
    """Put other weights into a checkpoint, with the right checksum."""
    (checkpoint / WEIGHTS).write_bytes(save(weights))
    sign(checkpoint)


def read_weights(checkpoint):
    """The weights in a checkpoint."""
    return load_file(checkpoint / WEIGHTS)


class Bomb:
    """Executes a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def _odd_json(random):
    return random.choice(
        [
            None,
            True,
            -1,
            0,
            3,
            10**30,
            -0.5,
            math.nan,
            math.inf,
            "",
            "x",
            "1",
            [],
            [1, 2],
            {},
            {"a": 1},
            [[[]]],
            "é" * 50,
        ]
    )


def _mutated(random, value, odd):
    """Nested values with one of them changed, removed, added or renamed."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key, found = random.choice(list(value)), dict(value)
        way = random.random()
        if way < 0.1:
            del found[key]
        elif way < 0.15:
            found["extra"] = odd(random)
        elif way < 0.2:
            found[odd(random).__class__.__name__] = found.pop(key)
        else:
            found[key] = _mutated(random, value[key], odd)
        return found
    if isinstance(value, list | tuple) and value and random.random() < 0.7:
        found, place = list(value), random.randrange(len(value))
        if random.random() < 0.2:
            del found[place]
        else:
            found[place] = _mutated(random, value[place], odd)
        return type(value)(found)
    return odd(random)


def _files(run, *ends):
    return sorted(path for path in run.rglob("*") if path.is_file() and (not ends or path.name.endswith(ends)))


def _file(random, run, *ends):
    """A file of the run, most often of a newest checkpoint, which counts most; figures count as one."""
    found = [path for path in _files(run, *ends) if path.suffix != ".png" or random.random() < 0.2]
    if not ends and random.random() < 0.4:
        return random.choice(_files(_checkpoint(random, run)))
    return random.choice(found)


def _checkpoint(random, run):
    """One of the checkpoints, most often a newest one."""
    found = [path.parent for path in run.rglob(MANIFEST)]
    numbers = {path: [int(part) for part in path.name.split("_") if part.isdecimal()] for path in found}
    last = max(numbers.values())
    return random.choice([path for path in sorted(found) if numbers[path] == last or random.random() < 0.3])


# Each damage takes (random, run, marker), the last one a file that appears if anything is executed, and says what it
# did. Bytes that were changed without a new checksum must never change a result.


def flip_bytes(random, run, marker):
    """Single bytes of a file."""
    path = _file(random, run)
    data = bytearray(path.read_bytes())
    for _ in range(random.choice((1, 1, 5, 50)) if data else 0):
        data[random.randrange(len(data))] = random.randrange(256)
    path.write_bytes(data)
    return path


def cut_off(random, run, marker):
    """A file that ends too early."""
    path = _file(random, run)
    size = path.stat().st_size
    os.truncate(path, random.choice((0, size // 2, max(0, size - 1), random.randint(0, size))))
    return path


def append(random, run, marker):
    """A file that does not end."""
    path = _file(random, run)
    with path.open("ab") as file:
        file.write(random.choice((b"\0" * 4096, b"\n", random.randbytes(30), b"1,2\n", b"[" * 100_000)))
    return path


def fill(random, run, marker):
    """A file with another content."""
    path = _file(random, run)
    other = random.choice(_files(run)).read_bytes()
    path.write_bytes(
        random.choice((random.randbytes(200), b"\0" * path.stat().st_size, other, b"[" * 100_000, b"{}", b"[]"))
    )
    return path


def remove(random, run, marker):
    """A file or folder that is gone."""
    path = random.choice(sorted(run.rglob("*")))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


def replace(random, run, marker):
    """A folder, or a link to itself or to nothing, in the place of a file; a file in the place of a folder."""
    path = random.choice(sorted(run.rglob("*")))
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("in the way")
    else:
        path.unlink()
        random.choice((lambda: path.mkdir(), lambda: path.symlink_to(path), lambda: path.symlink_to("nowhere")))()
    return path


def rename(random, run, marker):
    """A checkpoint with an odd name, or a copy of one."""
    path = _checkpoint(random, run)
    new = path.with_name(random.choice(ODD_NAMES))
    if random.random() < 0.5:
        path.rename(new)
    else:
        shutil.copytree(path, new)
    return new


def edit_json(random, run, marker):
    """A manifest, results, or what is known of the environment, with another content."""
    path = _file(random, run, ".json")
    found = _mutated(random, json.loads(path.read_text()), lambda r, _=None: _odd_json(r))
    path.write_text(json.dumps(found))
    return path


def edit_table(random, run, marker):
    """A line of a table with another content."""
    path = _file(random, run, ".csv")
    lines = path.read_text().splitlines(keepends=True)
    number = random.randrange(len(lines))
    cells = lines[number].split(",")
    odd = ("x", "", "nan", "inf", "1e999", "-1", "\0", '"', "1,2", "\n", "é")
    cells[random.randrange(len(cells))] = random.choice(odd)
    lines[number] = ",".join(cells)
    path.write_text("".join(lines))
    return path


def edit_lock(random, run, marker):
    """A lock that a process left, or something else of that name."""
    path = run / ".lock"
    path.write_bytes(
        random.choice((b"", b"{", b"[" * 4000, b'{"host": "x"}', random.randbytes(40), b"null", b'{"pid": 1}'))
    )
    return path


def edit_weights(random, run, marker):
    """Other weights, and the right checksum."""
    path = _checkpoint(random, run)
    weights = read_weights(path)
    name = random.choice(sorted(weights))
    value = weights.pop(name)
    changed = (
        value.double() if value.dtype == torch.float32 else value.float(),
        value.half(),
        value.flatten(),
        value[None],
        value[:0] if value.ndim else value,
        torch.full_like(value, math.nan),
        torch.full_like(value, -math.inf),
        value.to(torch.int64),
    )
    way = random.random()
    if way < 0.6:
        weights[name] = random.choice(changed).contiguous()
    elif way < 0.8:
        weights[f"{name}.more"] = value.clone()
        if random.random() < 0.5:
            weights[name] = value
    write_weights(path, weights)
    return path / WEIGHTS


def sign_damage(random, run, marker):
    """Changed bytes of weights or state, and the right checksum."""
    path = _checkpoint(random, run)
    file = path / random.choice((STATE, WEIGHTS))
    data = bytearray(file.read_bytes())
    for _ in range(random.choice((1, 3, 30))):
        data[random.randrange(len(data))] = random.randrange(256)
    file.write_bytes(data[: random.choice((len(data), len(data), len(data) // 2))])
    sign(path)
    return file


def plant(random, run, marker):
    """A pickle that executes something, with the right checksum."""
    path = _checkpoint(random, run)
    bomb = {"optimizer": Bomb(marker)}
    if random.randrange(2):
        (path / STATE).write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path / STATE)
    sign(path)
    return path / STATE


UNSIGNED = (flip_bytes, cut_off, append, fill, remove, replace, rename, edit_lock)
CONTENT = (edit_json, edit_table, edit_weights, sign_damage, plant)
