"""Machine code that two processes compiled is not mixed up by a third one."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
from numba.core.bytecode import FunctionIdentity

from kernels import rope


def test_functions_are_numbered_apart_in_every_process():
    """Numba's linker tells functions of a factory by that number alone."""
    code = (
        "from kernels import simd; from numba.core.bytecode import FunctionIdentity as functions; "
        "print(next(functions._unique_ids))"
    )
    found = {next(FunctionIdentity._unique_ids)}
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        found.add(int(done.stdout))
    ordered = sorted(found)
    assert len(ordered) == 4
    assert all(b - a > 10**6 for a, b in pairwise(ordered))


def test_a_compiled_function_carries_such_a_number():
    """Should Numba keep its count elsewhere, this is where it shows."""
    table = np.zeros(4, np.float32)
    rope.angles(3, 1, 4, rope.split(np.array([1.0, 0.1])), 0, table, 0)
    for compiled in rope.angles.overloads.values():
        assert compiled.fndesc.uid > 10**6
        assert str(compiled.fndesc.uid) in compiled.fndesc.mangled_name
