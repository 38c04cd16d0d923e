"""Every array that a kernel works with, scratch memory included, lies between zones that no kernel may touch.

Zones and scratch memory are full of a whole number below 0, whose bits are NaN as a real number.
"""

import ctypes
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from torch import Tensor

from firstspike.spiketime.cpu.runtime.kernels import LINE
from firstspike.spiketime.cpu.runtime.parallel import Call, run

ZONE = 1 << 14  # bytes of a zone, at least; what reaches further may end the process before it is found
WORD = -77  # as a real number of 32 or 64 bits this is NaN, and as an index it rarely ends the process
_PATTERN = np.full(ZONE, WORD, np.int32).view(np.uint8)

INPUTS = {
    "c", "times", "weight", "threshold", "delay", "mem", "syn", "grad", "bound", "bounds", "lag", "reset",
    "refractory", "observed", "of_end",
}  # fmt: skip
"""Arrays that no kernel may write to."""

UNGUARDED = Call.__call__


class Guarded:
    """Memory for arrays of so many bytes; each begins with a cache line."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._spans, end = {}, 0
        for name, size in sizes.items():
            begin = -(-(end + ZONE) // LINE) * LINE
            self._spans[name] = begin, (end := begin + size)
        words = np.full((end + ZONE + LINE) // 4 + 1, WORD, np.int32)
        self._memory = words.view(np.uint8)[-words.ctypes.data % LINE :][: end + ZONE]

    def address(self, name: str) -> int:
        return int(self._memory.ctypes.data) + self._spans[name][0]

    def touched(self) -> list[str]:
        """What was written outside of the arrays."""
        spans = {"the beginning": (0, 0), **self._spans, "the end": (self._memory.size, 0)}
        found = []
        for (before, (_, begin)), (after, (end, _)) in pairwise(spans.items()):
            zone, untouched = self._memory[begin:end], _PATTERN[begin % 4 :][: end - begin]
            if zone.tobytes() != untouched.tobytes():
                wrong = np.flatnonzero(zone != untouched)
                found.append(f"{wrong[0]} bytes after {before}, up to {zone.size - wrong[-1]} bytes before {after}")
        return found


def guarded(call: Call, *arrays: Tensor | None):
    """``Call.__call__`` with guarded copies of the arrays, and guarded scratch memory.

    Raises:
        AssertionError: the kernel wrote outside of its arrays or to an input, or an array has another size than the
            layout says.
    """
    taken = call.plan.taken
    assert len(arrays) + len(call.plan.starts) == len(taken)
    given = dict(zip(taken, arrays, strict=False))
    memory = Guarded({name: size for name, size in taken.items() if given.get(name, name) is not None})
    tensors = {name: x for name, x in given.items() if x is not None}
    for name, x in tensors.items():
        assert x.is_contiguous(), name
        assert x.nbytes == taken[name], (
            f"the layout says {taken[name]} bytes for {name}, got {tuple(x.shape)} {x.dtype}"
        )
        ctypes.memmove(memory.address(name), x.data_ptr(), x.nbytes)
    places = [0 if given.get(name, name) is None else memory.address(name) for name in taken]
    left = run(call.kernel, call.phases, call.plan.numbers_at(places), call.threads)
    touched = memory.touched()
    assert not touched, f"a kernel wrote {'; '.join(touched)}"
    for name, x in tensors.items():
        if name in INPUTS:
            same = ctypes.string_at(memory.address(name), x.nbytes) == ctypes.string_at(x.data_ptr(), x.nbytes)
            assert same, f"a kernel wrote to its input {name}"
        else:
            ctypes.memmove(x.data_ptr(), memory.address(name), x.nbytes)
    return left
