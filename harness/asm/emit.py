"""Kernel -> LLVM code for another CPU -> its assembly; `main` runs in a process of its own.

Numba always makes code for the CPU it runs on, so a fresh process emits unoptimised LLVM code with
the other CPU's features pretended (kernels/lowering.py); here it is stripped of this CPU's
traces, and optimised for the other one with the passes that Numba uses.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from harness.asm.cores import Core
from harness.errors import HarnessError
from kernels.lowering import CROSS, FOREIGN, PLAIN

ENTRY = "; entry "  # marks, in the first line, the function that is the kernel's `run`
HOST_TRACES = re.compile(
    r'^target (triple|datalayout) .*$|"(target-cpu|target-features|probe-stack)"="[^"]*"', re.M
)


def emit(names: Sequence[str], features: str) -> Mapping[str, str]:
    """The LLVM code of each kernel for a CPU of these features, all of its callees included."""
    given = {k: v for k, v in os.environ.items() if k != PLAIN and not k.startswith("NUMBA_")}
    environment = {**given, CROSS: features, "NUMBA_OPT": "0"}
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "harness.asm.emit", folder, *names],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise HarnessError(f"cannot emit {', '.join(names)} for {features!r}: {last}")
        return {name: (Path(folder) / f"{name}.ll").read_text("utf-8") for name in names}


def assemble(code: str, core: Core) -> str:
    """The assembly of `emit`'s code on a core, with LLVM's comments on loops."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    first, _, rest = code.partition("\n")
    entry = first.removeprefix(ENTRY)
    text = HOST_TRACES.sub("", rest).replace(FOREIGN, "llvm.")
    machine = llvm.Target.from_triple(core.triple).create_target_machine(
        cpu=core.name, opt=3, reloc="pic", codemodel="default", printmc=True
    )
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = core.triple, str(machine.target_data)
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name == entry else "internal"
    _optimise(module, machine)
    return str(machine.emit_assembly(module))


def _optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """What Numba does to a finished module: inline, drop references counted in vain, optimise."""
    from numba.core.codegen import _parse_refprune_flags  # noqa: PLC0415 - takes a second
    from numba.core.llvm_bindings import create_pass_builder  # noqa: PLC0415

    for level in (0, 3):
        builder = create_pass_builder(machine, opt=level, loop_vectorize=level > 0)
        passes = builder.getModulePassManager()
        if level == 0:
            passes.add_loop_rotate_pass()
            passes.add_instruction_combine_pass()
            passes.add_jump_threading_pass()
        passes.add_refprune_pass(_parse_refprune_flags())
        passes.run(module, builder)


def main(folder: str, *names: str) -> None:
    import numba  # noqa: PLC0415

    from harness import plugins  # noqa: PLC0415
    from kernels import spec  # noqa: PLC0415

    for name in names:
        kernel = plugins.pick(plugins.kernel_specs(), name, "kernel")
        arrays = spec.allocate(kernel, kernel.example, "input", "state", "scratch", "output")
        signature = (*map(numba.typeof, arrays), numba.int64, numba.int64)
        run: Any = kernel.run
        run.compile(signature)
        (compiled,) = run.overloads.values()
        code = compiled.library.get_llvm_str()
        text = f"{ENTRY}{compiled.fndesc.llvm_func_name}\n{code}"
        (Path(folder) / f"{name}.ll").write_text(text, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
