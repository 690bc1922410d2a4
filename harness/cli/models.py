"""Verbs on single candidates: train, generate, export, yardstick."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import app
from harness.cli.screen import AsJson, bars, note, show_json

if TYPE_CHECKING:
    from harness.records import Recipe

Candidate = Annotated[
    str, typer.Argument(help="MIXER[+FFN]:SIZE[@STEP[+STEP]], or a folder of weights")
]


@app.command(epilog="Example: edgewise train mcsd:nano@prune50+int8")
def train(
    candidate: Candidate,
    corpus: Annotated[str, typer.Option(help="See `edgewise list corpora`.")] = "pydocs",
    tokens: Annotated[
        int | None, typer.Option(help="Training budget instead of the size's.")
    ] = None,
    seed: int = 0,
    fresh: Annotated[bool, typer.Option(help="Train even if a checkpoint is there.")] = False,
) -> None:
    """Train a candidate, apply its steps, save the checkpoint, score it. Resumable with Ctrl-C."""
    from harness import candidates, quality
    from harness import checkpoint as checkpoints
    from harness.errors import BadInput
    from harness.make import make

    recipe = candidates.parse(candidate, corpus=corpus, tokens=tokens, seed=seed)
    if recipe.origin is not None:
        raise BadInput(f"{candidate} is trained already: try `edgewise generate {candidate}`")
    if recipe.tokens == 0:
        raise BadInput(f"{candidate} has no training budget; it runs on random weights, speed only")
    begin = time.perf_counter()
    with bars() as progress:
        task = progress.add_task(candidate, total=None)

        def watch(stage: str, done: int, total: int) -> None:
            progress.update(task, description=f"{candidate}: {stage}", completed=done, total=total)

        checkpoint = make(recipe, watch, fresh=fresh)
    score = quality.score(checkpoint)
    path = checkpoints.find(recipe)
    print(f"{candidate}: {candidates.parameters(checkpoint.shape):,} parameters")
    print(f"{score.metric} on {score.corpus}: {score.value:.4f} ± {score.standard_error:.4f}")
    print(f"checkpoint: {path}")
    note(f"{time.perf_counter() - begin:.0f} s")


@app.command(epilog='Example: edgewise generate mcsd:nano@int8 --prompt "The with statement "')
def generate(
    candidate: Candidate,
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "The ",
    tokens: Annotated[
        int, typer.Option(min=1, help="Bytes to write; of public weights, tokens.")
    ] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest.")] = 0.7,
    seed: int = 0,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    corpus: Annotated[str, typer.Option(help="The text it was trained on.")] = "pydocs",
) -> None:
    """Write text, token by token, with the engine that is timed."""
    from harness import candidates, host
    from harness.engines.numba import session as engine
    from harness.errors import BadInput
    from harness.generate import language, sample
    from harness.make import make

    recipe = candidates.parse(candidate, corpus=corpus)
    if recipe.origin is None:
        if recipe.tokens == 0:
            raise BadInput(
                f"{candidate} runs on random weights, speed only; it has nothing to write"
            )
        _require_trained(recipe)
    speech = language(recipe)
    start = speech.encode(prompt)
    if not prompt or not start:
        raise BadInput("the prompt is empty; give at least one character")
    checkpoint = make(recipe)
    room = len(start) + tokens
    cores = host.affinity_for(threads)
    with engine.open_session(checkpoint, room=room, threads=threads, cores=cores) as session:
        begin = time.perf_counter()
        logits = engine.feed(session, start)
        first = time.perf_counter()
        sys.stdout.buffer.write(prompt.encode())
        written = 0
        for piece in speech.pieces(sample(session, logits, tokens, temperature, seed)):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            written += 1
        seconds = time.perf_counter() - first
    print()
    note(
        f"{written / seconds:.0f} {speech.unit}/s on {threads} thread(s); first token after "
        f"{1000 * (first - begin):.1f} ms; compiled or loaded in {session.load_seconds:.1f} s"
    )
    if checkpoint.shape.context < room:
        note(f"longer than the {checkpoint.shape.context} {speech.unit} it was trained on")


class FileFormat(StrEnum):
    gguf = "gguf"


@app.command(epilog="Example: edgewise export attention:nano@int4 --format gguf --output nano.gguf")
def export(
    candidate: Candidate,
    format: Annotated[FileFormat, typer.Option(help="gguf: what llama.cpp runs.")],
    output: Annotated[
        Path | None, typer.Option(help="The file; named after the candidate by default.")
    ] = None,
    corpus: Annotated[str, typer.Option(help="The text it was trained on.")] = "pydocs",
) -> None:
    """Write an attention candidate's weights for another engine, with the very levels stored here.

    f32, f16, int8 and int4 weights become F32, F16, Q8_0 and Q4_0; a size without training gets
    random weights, for speed only. Needs the gguf package.
    """
    from harness import candidates
    from harness import export as exports
    from harness.checkpoint import file_name
    from harness.make import make

    recipe = candidates.parse(candidate, corpus=corpus)
    exports.check_shape(recipe.name, candidates.final_shape(recipe))
    if recipe.tokens and recipe.origin is None:
        _require_trained(recipe)
    slug, _, _ = file_name(recipe).rpartition("-")
    path = output or Path(f"{slug}.{format}")
    kind = exports.export(make(recipe), path)
    what = "" if recipe.tokens or recipe.origin else ", random weights: speed only"
    print(f"wrote {path}: {kind}, {path.stat().st_size:,} bytes{what}")


def _require_trained(recipe: Recipe) -> None:
    """Raise BadInput unless the weights are there, or what they are made from."""
    from harness import candidates
    from harness import checkpoint as checkpoints
    from harness.errors import BadInput

    if not (checkpoints.find(recipe) or checkpoints.find(candidates.base(recipe))):
        raise BadInput(
            f"{recipe.name} is not trained on {recipe.corpus}; run `edgewise train {recipe.name} "
            f"--corpus {recipe.corpus}` first"
        )


@app.command(epilog="Example: edgewise yardstick plain")
def yardstick(
    which: Annotated[str, typer.Argument(help="plain: learned positions and GELU; rope: ours")],
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Train the small CPU set-up everyone knows on TinyShakespeare: 2000 steps, 2 to 4 minutes.

    The published validation loss is about 1.88 nats a character.
    """
    from harness.training import yardstick as setup

    with bars() as progress:
        task = progress.add_task(which, total=setup.STEPS)
        found = setup.run(
            which,
            lambda now: progress.update(
                task, completed=now.step, description=f"{which}: loss {now.loss:.3f}"
            ),
            threads=threads,
            seed=seed,
        )
    if as_json:
        show_json(found)
    else:
        for key, value in found.items():
            print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}")
