"""Model + loss -> the same model, trained; interrupted at any moment, it goes on bit for bit.

All randomness of a step follows from (seed, step), so that weights, moments and the step number
are the whole state of a run.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.errors import TrainingFailed

BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.1  # of matrices only
CLIP = 1.0  # largest norm of all gradients together
WARM_UP = 100  # steps; a fifth of a run that is shorter than five times as much
FLOOR = 0.1  # share of the learning rate that the cosine ends at
RATE_FACTOR = (
    30.0  # learning rate of learned decays, which live in logits; of 10, 30 and 100 the best
)
SAVE_EVERY_SECONDS = 20.0
TRACE_EVERY = 50  # steps
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does, apart from its data.

    key: names everything else the result depends on (recipe, corpus hash, teacher)
    folder: where an interrupted run leaves its state; None keeps none
    """

    steps: int
    tokens_a_step: int
    learning_rate: float
    seed: int
    key: str
    threads: int = 1
    warm_up: int = WARM_UP
    folder: Path | None = None
    save_every_seconds: float = SAVE_EVERY_SECONDS


@dataclass(frozen=True, slots=True)
class Progress:
    step: int  # done so far
    steps: int
    loss: float  # nats per token of this step's batch
    tokens_per_s: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run leaves for the provenance; losses are [step, nats per token]."""

    losses: list[list[float]]
    seconds: float


Watch = Callable[[Progress], None]
Objective = Callable[[int], tuple[Tensor, Tensor]]  # step -> the loss, and penalties on top


def optimise(model: nn.Module, loss: Objective, plan: Plan, watch: Watch | None = None) -> Trace:
    """Minimise the objective by AdamW with warm-up and cosine, from where a run was left.

    Raises TrainingFailed when the loss is not finite or the saved state cannot be read.
    """
    optimiser = optimiser_of(model)
    path = state_path(plan)
    with _settings(plan.threads):
        first, trace = _resume(path, model, optimiser)
        model.train()
        started = saved = time.perf_counter()
        for step in range(first, plan.steps):
            rate = learning_rate(plan, step)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            optimiser.zero_grad()
            value, penalty = loss(step)
            (value + penalty).backward()  # type: ignore[no-untyped-call]
            nats = _finite(value.item(), step, rate)
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
            if step % TRACE_EVERY == 0 or step == plan.steps - 1:
                trace.losses.append([step, round(nats, 4)])
            now, done = time.perf_counter(), step + 1 - first
            if watch:
                pace = (now - started) / done
                left = pace * (plan.steps - step - 1)
                watch(Progress(step + 1, plan.steps, nats, plan.tokens_a_step / pace, left))
            if path and now - saved >= plan.save_every_seconds:
                so_far = Trace(trace.losses, trace.seconds + now - started)
                _save(path, model, optimiser, step + 1, so_far)
                saved = now
        model.eval()
    if path:
        path.unlink(missing_ok=True)
    return Trace(trace.losses, trace.seconds + time.perf_counter() - started)


def learning_rate(plan: Plan, step: int) -> float:
    """Linear warm-up, then half a cosine down to FLOOR of the peak at the last step."""
    if step < plan.warm_up:
        return plan.learning_rate * (step + 1) / (plan.warm_up + 1)
    gone = (step - plan.warm_up) / max(1, plan.steps - plan.warm_up)
    return plan.learning_rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * gone)))


def state_path(plan: Plan) -> Path | None:
    """The file of an interrupted run, named by all that its result depends on."""
    if plan.folder is None:
        return None
    everything = asdict(plan) | {"torch": torch.__version__}
    for unrelated in ("folder", "save_every_seconds"):
        del everything[unrelated]
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]
    return plan.folder / f"unfinished-{digest}.safetensors"


def optimiser_of(model: nn.Module) -> torch.optim.Optimizer:
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    rates: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if name.endswith("logits"):
            rates.append(parameter)
        else:
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": WEIGHT_DECAY, "factor": 1.0},
        {"params": vectors, "weight_decay": 0.0, "factor": 1.0},
        {"params": rates, "weight_decay": 0.0, "factor": RATE_FACTOR},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=BETAS, fused=True)


@contextmanager
def _settings(threads: int) -> Iterator[None]:
    """Threads as asked, and tiny numbers as zero: tails of a decay would be slow otherwise."""
    before = torch.get_num_threads()
    _keep_memory()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def _finite(nats: float, step: int, rate: float) -> float:
    if not math.isfinite(nats):
        raise TrainingFailed(
            f"the loss is {nats} at step {step} with learning rate {rate:.2g}; try a smaller one"
        )
    return nats


def _keep_memory() -> None:
    """Tell the C library to keep what a step frees for the next one; glibc only.

    It would give large blocks back to the system, and every step would fetch, and clear, its
    memory anew: 15 % of the time at 0.8 M parameters.
    """
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            allocator.mallopt(option, KEPT_BYTES)


def _save(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, trace: Trace
) -> None:
    """Write the state atomically. Raises TrainingFailed when the disk cannot take it."""
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach()
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"{moment}.{name}"] = optimiser.state[parameter][moment]
    header = {"step": str(step), "trace": json.dumps(asdict(trace))}
    temporary = path.with_suffix(".saving")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata=header)
        temporary.replace(path)
    except Exception as error:
        with suppress(OSError):
            temporary.unlink()
        raise TrainingFailed(f"cannot save the state of training in {path}: {error}") from error


def _resume(
    path: Path | None, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, Trace]:
    """The step to go on with, after loading what an interrupted run left."""
    if path is None or not path.exists():
        return 0, Trace([], 0.0)
    from safetensors import safe_open  # noqa: PLC0415

    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            header = file.metadata()
            for name, parameter in model.named_parameters():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
                optimiser.state[parameter] = {
                    moment: file.get_tensor(f"{moment}.{name}")
                    for moment in ("step", "exp_avg", "exp_avg_sq")
                }
            return int(header["step"]), Trace(**json.loads(header["trace"]))
    except Exception as error:
        raise TrainingFailed(
            f"the state of an interrupted training in {path} cannot be read ({error}); "
            f"delete it to start again"
        ) from error
