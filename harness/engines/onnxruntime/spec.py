"""ONNX Runtime behind the interface that every engine has."""

from __future__ import annotations

from harness.records import Checkpoint, Engine, Opened

FORMS = {
    "f32": "float32 weights, repacked by MLAS",
    "int8 g32": "MatMulNBits, 8 bits in groups of 32, activations rounded to int8",
    "int4 g32": "MatMulNBits, 4 bits in groups of 32, activations rounded to int8",
}


def about() -> str:
    import onnxruntime  # noqa: PLC0415

    build = onnxruntime.get_build_info().removeprefix("ORT Build Info: ")
    return (
        f"ONNX Runtime {onnxruntime.__version__}, the published CPU build ({build}); every graph "
        "optimisation; weights repacked at load (MLAS), MatMulNBits with accuracy level 4, which "
        "multiplies int8; threads pinned, spinning between operators as they do by default"
    )


def open_checkpoint(checkpoint: Checkpoint, room: int, threads: int, form: str) -> Opened:
    from harness.engines.onnxruntime.model import Model  # noqa: PLC0415

    return Model(checkpoint, room, threads, form)


SPEC = Engine(
    name="onnxruntime",
    summary="ONNX Runtime: MatMulNBits and float32 graphs on the CPU",
    packages=("onnxruntime", "onnx"),
    forms=FORMS,
    about=about,
    open=open_checkpoint,
    source="https://onnxruntime.ai",
)
