"""Verbs on CPUs that are not at hand: asm."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import app
from harness.cli.screen import AsJson, devices_folder, show_json


@app.command(epilog="Example: edgewise asm matvec_int4 --cpu cortex-a76")
def asm(
    kernel: Annotated[str, typer.Argument(help="As `edgewise list kernels` names it.")],
    cpu: Annotated[str, typer.Option(help="A core by LLVM's name: cortex-a76, znver4 ...")],
    full: Annotated[bool, typer.Option(help="The whole assembly instead of its loops.")] = False,
    as_json: AsJson = False,
) -> None:
    """The inner loops another CPU would run: instructions, bytes, cycles by LLVM's model."""
    from harness.asm import asm as examine
    from harness.asm.text import text

    report = examine(kernel, cpu, devices_folder())
    if as_json:
        show_json(report)
    else:
        print(report.assembly if full else text(report))
