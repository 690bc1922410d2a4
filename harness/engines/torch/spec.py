"""PyTorch behind the interface that every engine has."""

from __future__ import annotations

import re

from harness.records import Checkpoint, Engine, Opened

FORMS = {
    "f32": "eager, float32",
    "f16": "eager, float16",
    "bf16": "eager, bfloat16",
    "bf16 onednn": "weights packed by oneDNN, as torch.compile does with frozen ones",
    "int8 dynamic": "FBGEMM: int8 a row, activations rounded in the call",
    "int8 packed": "int8 a row, bfloat16 activations",
    "int4 packed": "int4 in groups of 32, bfloat16 activations",
    "f32 compiled": "float32 through torch.compile",
    "bf16 compiled": "bfloat16 through torch.compile",
    "int8 packed compiled": "int8 a row through torch.compile",
    "int4 packed compiled": "int4 in groups of 32 through torch.compile",
}


def about() -> str:
    import torch  # noqa: PLC0415

    text = torch.__config__.show()
    onednn = re.search(r"MKL-DNN v([0-9.]+)", text)
    blas = re.search(r"BLAS_INFO=(\w+)", text)
    return (
        f"PyTorch {torch.__version__}, the published CPU build: "
        f"{torch.backends.cpu.get_cpu_capability()}, BLAS {blas[1] if blas else 'unknown'}, "
        f"oneDNN {onednn[1] if onednn else 'none'}, quantised engines "
        f"{', '.join(torch.backends.quantized.supported_engines)}; weights packed once where the "
        "operator packs; OpenMP threads pinned, waiting as OpenMP does by default"
    )


def open_checkpoint(checkpoint: Checkpoint, room: int, threads: int, form: str) -> Opened:
    from harness.engines.torch.model import Model  # noqa: PLC0415

    return Model(checkpoint, room, threads, form)


SPEC = Engine(
    name="torch",
    summary="PyTorch: eager, packed by oneDNN, int8 and int4 operators",
    packages=("torch",),
    forms=FORMS,
    about=about,
    open=open_checkpoint,
    source="https://pytorch.org",
)
