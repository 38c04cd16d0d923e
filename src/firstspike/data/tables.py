"""Tables from files: NumPy's ``.npy`` and ``.npz``, or text. Reading one executes nothing."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from firstspike.data.arrays import Image, as_number, as_table
from firstspike.data.paths import naming
from firstspike.text import first_line

Line = tuple[int, list[str]]
"""A line of a text file: its number and its cells."""
_SEPARATORS = (";", "\t", ",")
_WORDS = {"": np.nan, "na": np.nan, "?": np.nan, "false": 0.0, "true": 1.0}  # among values
_NAMED = 5  # columns in an error message


class Table(NamedTuple):
    """A table as it was read: ``times`` or ``trains``, with ``inf`` for no spike, or ``values``, NaN if missing."""

    path: Path
    kind: str
    numbers: Float64[Tensor, "samples inputs"]
    labels: Any = None  # as in the file
    image: Image | None = None
    class_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    lines: Sequence[int] = ()  # of the samples in a text file

    @property
    def grid(self) -> Float64[Tensor, "samples rows columns"]:
        """The numbers of an array ``(samples, rows, columns)``; of a table a row for each sample."""
        return self.numbers.unflatten(1, (1, -1) if self.image is None else self.image[1:])

    def place(self, sample: int) -> str:
        """The place of a sample in the file."""
        return f"line {self.lines[sample]}" if self.lines else f"sample {sample}"


def read_table(
    path: Path | str, inputs: Mapping[str, int | None], label: str | int | None = None, columns: Sequence[str] = ()
) -> Table:
    """Read a table in one of the forms of ``file_splits``. Known ``columns`` are brought into their order.

    ``inputs`` has the kinds of numbers that the file may hold, and how many a sample must have, None for any. A file
    that does not say of which kind it is holds the first one. ``label`` is the array, or the column by name or number,
    that has the labels. A ValueError names the file, and for text line and column.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return _read_text(path, *next(iter(inputs.items())), label, columns)
    if path.suffix not in (".npy", ".npz") and not path.is_dir():
        raise ValueError(f"{path}: expected .npy, .npz, .csv or a folder of .npy, got {path.suffix or 'no suffix'}")
    arrays = read_arrays(path)
    kind = next((name for name in inputs if name in arrays), next(iter(inputs)))
    if "" in arrays:
        arrays = {kind: arrays[""]}
    for name in (kind,) if label is None else (kind, str(label)):
        if name not in arrays:
            hint = "; values need encode" if name == "times" and "values" in arrays else ""
            raise ValueError(f"{path}: expected an array {name!r}, got {', '.join(arrays) or 'none'}{hint}")
    with naming(path):
        how = "name the array 'trains' (.npz)" if kind == "times" else None
        numbers, image = as_table(arrays[kind], kind, inputs[kind], how)
        if not len(numbers):
            raise ValueError(f"{kind}: expected at least one sample, got {arrays[kind].shape}")
    texts = (arrays.get(name, np.empty(0)).ravel().tolist() for name in ("class_names", "columns"))
    class_names, named = (list(map(str, each)) for each in texts)
    if named and len(named) != numbers.shape[1]:
        raise ValueError(f"{path}: columns: expected a name for each of {numbers.shape[1]} inputs, got {len(named)}")
    if named and columns:
        order = _in_order(str(path), named, list(range(len(named))), columns, False)
        numbers, named = numbers[:, order], [named[k] for k in order]
    labels = None if label is None else arrays[str(label)]
    return Table(path, kind, numbers, labels, image, tuple(class_names) or None, tuple(named))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` or a folder of ``.npy``, or the one of an ``.npy``, which has the name ""."""
    if path.is_dir():
        return {file.stem: read_arrays(file)[""] for file in sorted(path.glob("*.npy"))}
    with _opened(path, "rb") as file:  # numpy leaves a file open that it cannot read
        try:
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        except Exception as error:  # the parsers of numpy and zipfile raise many kinds of errors for damaged files
            reason = first_line(error)
            if "pickle" in reason:
                reason = "it is another kind of file, or holds Python objects, as the columns of a frame: list(columns)"
            raise ValueError(f"{path}: cannot be read as NumPy arrays of numbers: {reason}") from None


def _opened(path: Path, *mode: Any, **options: Any) -> IO[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    return path.open(*mode, **options)


class _Text(NamedTuple):
    """A text file: its lines, the cells of the first one, whether these are names, and which column has the labels."""

    path: Path
    rows: list[Line]
    names: list[str]
    header: bool
    label: int | None

    @property
    def samples(self) -> list[Line]:
        """The lines after the one of names."""
        return self.rows[self.header :]

    def column(self, number: int) -> str:
        """A column in messages."""
        return f"column {number + 1}" + (f" ({self.names[number]})" if self.header else "")


def _read_text(path: Path, kind: str, inputs: int | None, label: str | int | None, known: Sequence[str]) -> Table:
    rows = read_lines(path)
    names = [" ".join(cell.split()) for cell in rows[0][1]] if rows else []
    place = _label_column(path, names, label)
    header = isinstance(label, str) or _is_header(names, rows[1:], place, known)
    if not rows[header:]:
        raise ValueError(f"{path}: has no samples")
    text = _Text(path, rows, names, header, place)
    columns = _input_columns(text, known)
    labelled = place is not None
    width = len(names) if inputs is None or (header and known) else inputs + labelled
    for line, cells in rows:
        if more := len(cells) - width:
            expected = f"{width - labelled} inputs" + (" and a label" if labelled else "")
            many = "many" if more > 0 else "few"
            hint = "; is it the label? Leave it out" if more == 1 and not labelled else ""
            raise ValueError(f"{path}, line {line}: expected {expected}, got {abs(more)} too {many}{hint}")
    numbers = _numbers(text, columns, kind)
    labels = None if place is None else [cells[place] for _, cells in text.samples]
    named = tuple(names[k] for k in columns) if header else ()
    return Table(path, kind, numbers, labels, columns=named, lines=[line for line, _ in text.samples])


def _input_columns(text: _Text, known: Sequence[str]) -> list[int]:
    """Numbers of the columns of the inputs, in the order of known names if the file has names, too."""
    path, names, labelled = text.path, text.names, text.label is not None
    columns = [k for k in range(len(names)) if k != text.label]
    if not text.header:
        return columns
    if (labelled or not known) and columns[0] == 0 and not names[0] and all(names[k] for k in columns[1:]):
        raise ValueError(
            f"{path}, column 1: expected inputs, got a column without a name, as of the numbers of rows: leave it out "
            "(pandas: to_csv(index=False)), or name it"
        )
    if known:
        return _in_order(f"{path}, line 1", names, columns, known, labelled)
    twice = [name for name, number in Counter(names[k] for k in columns if names[k]).items() if number > 1]
    if labelled and twice:
        raise ValueError(f"{path}, line 1: two columns are called {twice[0]!r}; inputs are taken by their names")
    return columns


def _numbers(text: _Text, columns: list[int], kind: str) -> Float64[Tensor, "samples inputs"]:
    """The numbers in these columns; a ValueError for the first cell without one."""
    found = [[_number(cells[k], kind) for k in columns] for _, cells in text.samples]
    numbers = np.array(found, dtype=np.float64)
    for (line, cells), row in zip(text.samples, found, strict=True):
        if None in row:
            column, hint = columns[row.index(None)], ""
            words = [columns[k] for k in np.flatnonzero(~np.isfinite(numbers).any(axis=0))]
            if cells[column].count(",") == 1 and _number(cells[column].replace(",", "."), kind) is not None:
                hint = "; decimals have a point, not a comma"
            elif column in words:
                some = _some(map(text.column, words))
                hint = f"; columns without numbers: {some}: write categories as columns of 0 and 1, or leave them out"
                if text.label is not None:
                    name = repr(text.names[column]) if text.header else column
                    hint += f"; labels are taken from {text.column(text.label)}, unless you set labels: {name}"
            expected = "a time, inf or nothing" if kind == "times" else "a number or nothing"
            where = f"{text.path}, {text.column(column)}, line {line}"
            raise ValueError(f"{where}: expected {expected}, got {cells[column].strip()[:40]!r}{hint}")
    return torch.from_numpy(numbers)


def _in_order(place: str, names: list[str], columns: list[int], known: Sequence[str], labelled: bool) -> list[int]:
    """Columns in the order of known names, or of the file if some are equal. Without labels others are left out."""
    if not labelled and len(set(known)) == len(known):  # new samples may have others, too
        columns = [k for k in columns if names[k] in known]
    found, wanted = Counter(names[k] for k in columns), Counter(known)
    pairs = (("lacks", wanted - found), ("has also", found - wanted))
    if differences := " and ".join(f"{what} {_some(names)}" for what, names in pairs if names):
        raise ValueError(f"{place}: expected the columns of the training data, in any order: it {differences}")
    number = {name: number for number, name in enumerate(known)}
    return columns if len(number) < len(known) else sorted(columns, key=lambda k: number[names[k]])


def _some(names: Iterable[str]) -> str:
    """The first of these names."""
    listed = list(names)
    return ", ".join(listed[:_NAMED]) + (" ..." if len(listed) > _NAMED else "")


def _label_column(path: Path, names: list[str], label: str | int | None) -> int | None:
    """Which column has the labels, from 0, by the cells of the first line."""
    if label is None or not names:
        return None
    if isinstance(label, str):
        if label not in names:
            raise ValueError(f"{path}, line 1: expected a column named {label!r}, got {_some(names)}")
        if names.count(label) > 1:
            raise ValueError(f"{path}, line 1: expected one column named {label!r}, got {names.count(label)}")
        label = names.index(label)
    if len(names) < 2:
        raise ValueError(
            f"{path}: expected columns of inputs and one of labels, got one column: {names[0][:40]!r}; columns are "
            "separated by commas, semicolons or tabs"
        )
    if not -len(names) <= label < len(names):
        numbers = f"0 (the first) ... {len(names) - 1}"
        raise ValueError(f"{path}: expected the number of the column with the labels, {numbers}, got {label}")
    return label % len(names)


def read_lines(path: Path) -> list[Line]:
    """Lines of a text file that are not blank."""
    try:
        with _opened(path, "rb") as raw:
            wide = raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as Excel writes "Unicode text"
        with _opened(path, newline="", encoding="utf-16" if wide else "utf-8-sig") as file:
            first = re.sub(r'"[^"]*"', "", next((line for line in file if line.strip()), ""))
            file.seek(0)
            delimiter = next((x for x in _SEPARATORS if x in first), ",")
            reader = csv.reader(_checked(file), delimiter=delimiter, skipinitialspace=True)
            return [(reader.line_num, row) for row in reader if row]
    except (UnicodeError, csv.Error) as error:
        what = "table" if isinstance(error, csv.Error) else "text file of UTF-8 or UTF-16"
        raise ValueError(f"{path}: is not a {what}: {error}") from None


def _checked(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a text, those of spaces as empty ones; a UnicodeError for NUL, as in UTF-16 without its mark."""
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UnicodeError(f"line {number} has characters NUL")
        yield line if line.strip(" \r\n") else "\n"


def _is_header(first: list[str], below: list[Line], label: int | None, known: Sequence[str]) -> bool:
    """Whether the first line names the columns: it holds the known names, or no number.

    Names may be numbers, too, if the cell of the labels is one that no line below has there: a word, or anything above
    words alone.
    """
    if known and set(known) <= set(first):
        return True
    inputs = [cell for column, cell in enumerate(first) if column != label]
    numbers = [cell for cell in first if as_number(float, cell) is not None]
    if not numbers:
        return any(first) and not all(cell.lower() in ("true", "false") for cell in inputs)
    if label is None or first[label].lower() in _WORDS:
        return False
    labels = [cells[label].strip() for _, cells in below if label < len(cells)]
    if first[label] in numbers and any(as_number(float, cell) is not None for cell in labels):
        return False
    usual = inputs == [str(k) for k in range(len(inputs))]  # as pandas names columns
    classes = len(set(labels)) < len(labels) or not any(as_number(float, cell) is None for cell in labels)
    return first[label] not in labels and len(set(inputs)) == len(inputs) and bool(labels) and (usual or classes)


def _number(cell: str, kind: str) -> float | None:
    """The number in a cell, of which an empty one means no spike, or a missing value; None if it has no meaning."""
    cell, values = cell.strip(), kind == "values"
    number = as_number(float, cell)
    if number is None:
        return _WORDS.get(cell.lower()) if values else None if cell else np.inf
    too_large = abs(number) == np.inf and any(map(str.isdecimal, cell))
    return number if not too_large and (abs(number) != np.inf if values else number > -np.inf) else None
