"""The nouns: frozen, no behaviour beyond their own invariants.

Units are SI without prefixes: seconds, bytes, joules, operations. One multiply-add is 2 operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Phase: TypeAlias = Literal["prefill", "decode", "train"]
SCHEMA = 1  # raised by one whenever a stored field changes meaning

# ---- what is tried -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary positions are stretched beyond the context first trained on.

    linear: all speeds over `factor` (Chen et al. 2023). llama3: only those of pairs that turn less
    than `low_turns` times within `original_context`, none that turn more than `high_turns` times,
    a blend between (Llama 3.1's own rule).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_turns: float = 1.0
    high_turns: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        if not self.factor >= 1 or self.original_context < 1:
            raise ValueError(
                f"a scaling needs factor and original_context of at least 1, "
                f"got {self.factor} and {self.original_context}"
            )
        if not 0 < self.low_turns < self.high_turns:
            raise ValueError(f"turns must rise from above 0: {self.low_turns}, {self.high_turns}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Dimensions of a stack of blocks, each RMSNorm + mixer + RMSNorm + gated ffn.

    hidden: ffn neurons; channels: MCSD channels; group: neurons an ffn switches at once;
    chosen: groups that a hash or moe ffn runs for a token, and a threshold ffn in the mean;
    context: tokens of a training window.
    """

    vocabulary: int
    width: int
    layers: int
    mixers: tuple[str, ...]  # one name a layer
    ffn: str
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    channels: int
    context: int
    group: int = 32
    selector_rank: int = 8
    chosen: int = 4
    tied: bool = False  # the head is the embedding
    cache: Literal["f32", "f16", "int8"] = "f32"  # how attention keeps keys and values
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: float = 1e-5  # inside the square root of every RMSNorm of the block

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "layers", "hidden", "heads", "kv_heads", "head_width",
                     "channels", "context", "group", "selector_rank", "chosen"):  # fmt: skip
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(self.mixers) != self.layers:
            raise ValueError(f"{self.layers} layers need as many mixers, got {self.mixers}")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads")
        if self.width % self.channels:
            raise ValueError(f"width {self.width} does not split into {self.channels} channels")
        if not self.norm_epsilon > 0 or not self.rope_base > 1:
            raise ValueError(
                f"norm_epsilon must be above 0 and rope_base above 1, "
                f"got {self.norm_epsilon} and {self.rope_base}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A folder of public weights.

    folder: where it is here; a row keeps its last part only, and no hash counts it
    files: hash over the contents of its files
    """

    folder: str
    files: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a candidate is made, from nothing; its hash finds the checkpoint again.

    name:  `MIXER[+FFN]:SIZE[@STEP[+STEP]]`, for people; `./FOLDER[@STEPS]` of public weights
    steps: transforms and formats in order, e.g. ("prune50", "int8")
    tokens: training budget [tokens]; 0 means random weights, so speed only
    active: mean fraction of ffn groups a selective ffn aims at
    teacher_share: of a student's loss; the rest is the text's own next token
    temperature: that both distributions are softened by for a student
    tuning_tokens: budget of each step that trains on, where not the step's own [tokens]
    """

    name: str
    shape: Shape  # before the steps
    steps: tuple[str, ...] = ()
    corpus: str = "pydocs"
    tokens: int = 0
    batch: int = 12
    seed: int = 0
    learning_rate: float = 3e-3
    active: float = 1.0
    teacher: str | None = None  # the name of another candidate, trained from seed 0
    teacher_tokens: int | None = None  # its training budget, where not its size's own
    origin: Origin | None = None  # of public weights, which are read rather than trained
    teacher_share: float = 0.5
    temperature: float = 2.0
    tuning_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights with the recipe that made them.

    shape:   after the steps, since pruning shrinks it
    arrays:  canonical tensor name -> array; a packed tensor has several, `NAME`, `NAME.scale`...
    formats: tensor name -> format name; a tensor that is absent is f32
    provenance: seed, commit, corpus_hash, losses, seconds, versions; empty for random weights
    """

    recipe: Recipe
    shape: Shape
    arrays: Mapping[str, Array]
    formats: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A parameter: its name inside the layer, and shape (rows, columns) or (n,).

    packed: stored in the candidate's weight format; otherwise it stays float32.
    parts, axis: the engine lays it out as that many matrices, cut along that axis
    record: tensors of a layer with this name and as many parts are laid out part by part: the
        first part of each, then the second of each...; they follow each other in the spec
    transposed: one that is not packed is laid out column by column
    """

    name: str
    shape: tuple[int, ...]
    packed: bool = True
    parts: int = 1
    axis: Literal[0, 1] = 0
    record: str = ""
    transposed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One kernel at one size, `count` times on distinct weights, within a workload.

    All figures are those of a single call. A mixer or ffn names the tensor it multiplies by in
    `weight` (and the mean `share` of it that is read); workload.py fills in the rest from the
    format that tensor is stored in, and the `part` of the block it belongs to.
    """

    kernel: str
    sizes: Mapping[str, int]
    count: int
    operations: int  # [op]
    weight: str = ""
    share: float = 1.0
    weight_bytes: int = 0  # read once [B]
    state_bytes: int = 0  # KV cache or recurrent state read and written [B]
    activation_bytes: int = 0  # [B]
    arithmetic: Literal["float32", "int8"] = "float32"
    format: str = "f32"
    part: Literal["", "norm", "mixer", "ffn", "head"] = ""

    @classmethod
    def of_matrix(
        cls, tensor: Tensor, tokens: int, blocks: int = 1, share: float = 1.0, work: float = 1.0
    ) -> Call:
        """`tokens` vectors through one weight matrix, or through its diagonal `blocks`.

        share: mean fraction of the weights read; work: mean fraction of them a token uses
        """
        rows, columns = tensor.shape
        return cls(
            kernel="matvec" if tokens == 1 else "matmul",
            sizes={"n": tokens, "m": rows // blocks, "k": columns},
            count=blocks,
            operations=round(2 * tokens * rows * columns * work) // blocks,
            weight=tensor.name,
            share=share / blocks,
            activation_bytes=4 * tokens * (rows // blocks + columns),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one run executes, in order: `tokens` tokens from context depth `depth`.

    name: pp128, tg64, tg64 @ d4096, ttft, train. Calls are those of ONE step: of the whole prompt
    for a prefill, of one token (at the middle of the run) for a decode, of one optimiser step.
    """

    name: str
    phase: Phase
    tokens: int
    depth: int
    layers: int
    calls: tuple[Call, ...]
    resident_bytes: int  # weights, state and scratch that stay in memory [B]

    @property
    def weight_bytes(self) -> int:
        return sum(c.count * c.weight_bytes for c in self.calls)

    @property
    def state_bytes(self) -> int:
        return sum(c.count * c.state_bytes for c in self.calls)

    @property
    def operations(self) -> int:
        return sum(c.count * c.operations for c in self.calls)


# ---- what was seen: one kind of evidence per quantity ------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An instrument on the named host read this very quantity. Raw samples, never averaged."""

    kind: Literal["measured"] = "measured"
    samples: tuple[float, ...]
    method: str  # the instrument: "pyperf", "rapl", "VmHWM", "counted"
    flags: tuple[str, ...] = ()  # what makes it shaky: "spread 14 %", "beyond trained context"

    def __post_init__(self) -> None:
        if not self.samples or not all(math.isfinite(s) and s >= 0 for s in self.samples):
            raise ValueError(f"samples must be finite, >= 0 and at least one, got {self.samples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """Computed from a device profile or an energy model by a named model; no instrument."""

    kind: Literal["projected"] = "projected"
    value: float
    low: float  # ends of the 90 % interval
    high: float
    model: str
    bound: str = ""  # what limits it: memory, compute, overhead
    flags: tuple[str, ...] = ()  # "extrapolates: format not seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The quantity could not be had. Kept: a hole in a sweep is a result."""

    kind: Literal["failed"] = "failed"
    reason: str


Evidence: TypeAlias = Measured | Projected | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """By how much projections missed one measurement of a device, and where it was taken.

    error: logarithm of measured over projected seconds; form: family of formats and kernel
    """

    phase: str
    engine: str
    form: str
    threads: int
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Score of the packed weights through the engine on held-out data.

    metric: "bits per byte" or "bits per answer" (lower is better) or "accuracy" (higher is better)
    blocks: parts of the text that the standard error is over
    trained_on: hash of the corpus the checkpoint saw, to be compared with `corpus_hash`
    protocol: how a text was read, see harness.losses
    context: tokens of a window, all of a carried text; 0 where nobody said, the trained context
    scored: tokens that were asked, or bytes of public weights' text; 0 where nobody said
    """

    metric: str
    value: float
    standard_error: float
    blocks: int
    corpus: str
    corpus_hash: str
    trained_on: str
    seconds: float = 0.0  # what scoring took
    flags: tuple[str, ...] = ()
    protocol: str = "windows"
    context: int = 0
    scored: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine and the software at the time of a measurement."""

    host: str
    device: str  # the profile this host is, or "" when it is none of them
    cpu: str
    cores: int
    memory_bytes: int
    caches: Mapping[str, int]  # {"l1d": bytes, ...} of one core's view
    governor: str
    affinity: tuple[int, ...]
    versions: Mapping[str, str]  # python, numba, numpy, edgewise, ...
    commit: str
    dirty: bool
    started: str  # UTC, ISO 8601
    clock_hz: tuple[float, ...] = ()  # at start and end, where readable
    temperature_celsius: tuple[float, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)  # doctor's: read_bytes_per_s.1, ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tried point with its evidence; metrics are functions on it."""

    candidate: str
    recipe_hash: str
    checkpoint_hash: str
    parameters: int
    device: str  # "host" names this machine when no profile fits
    workload: str
    phase: Phase
    tokens: int
    depth: int
    threads: int
    engine: str
    seconds: Evidence  # of the whole run of `tokens` tokens
    joules: Evidence  # of the whole run
    resident: Evidence  # weights + state + scratch [B]
    quality: Quality | None  # None: speed only, random weights
    environment: Environment | None = None  # None: projected
    weight_bytes: int = 0  # streamed in one step
    state_bytes: int = 0
    operations: int = 0  # of one step
    compile_seconds: float | None = None
    peak: Evidence | None = None  # high-water mark of the worker process [B]
    baseline_bytes: int | None = None  # the same process before the model was loaded
    kernel_hash: str = ""  # of the compiled code that was timed: sources, Numba, CPU
    seed: int = 0
    quick: bool = False  # too few samples to publish
    recipe: Recipe | None = None  # of public weights, whose name does not say what they are
    schema: int = SCHEMA


# ---- what a plugin file provides, as its SPEC ----------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """A corpus as bytes, or for `recall` as token arrays made on demand."""

    train: NDArray[np.uint8]  # (n,)
    validation: NDArray[np.uint8]
    test: NDArray[np.uint8]
    hash: str  # SHA-256 over the three


@dataclass(frozen=True, slots=True)
class Examples:
    """Independent examples, tokens (count,n) int64, and the positions whose next token is asked."""

    tokens: Array
    scored: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Running text, or independent examples of `example` tokens one after the other.

    example: tokens of an example; 0 is running text
    vocabulary: tokens are below it; 256 are bytes
    metric: of a running text bits per byte; of what is asked in examples bits or right answers
    scored: positions in an example whose next token is asked; all of a running text
    sample(random, b, n, gone): inputs and targets (rows, tokens) int64, made for training, of
        about b*n tokens, `gone` in 0..1 being the share of training that is over (a curriculum);
        a target of -100 is not scored; None: random windows of the train split
    series(): held-out examples by what makes them harder, {"pairs": {2: ..., 4: ...}}
    symbols(): the byte that each token stands for; None: tokens are bytes, or stand for nothing
    """

    name: str
    summary: str
    load: Callable[[], Splits]
    metric: Literal["bits per byte", "bits per answer", "accuracy"]
    source: str
    example: int = 0
    vocabulary: int = 256
    scored: tuple[int, ...] = ()
    sample: (
        Callable[
            [np.random.Generator, int, int, float],
            tuple[NDArray[np.int64], NDArray[np.int64]],
        ]
        | None
    ) = None
    series: Callable[[], Mapping[str, Mapping[int, Examples]]] | None = None
    symbols: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixer:
    """Moves information between tokens: the torch-free half of a mixer folder.

    tensors(shape): parameters of one layer
    state_values(shape, depth): room one layer takes for a context of `depth` tokens, in units of
        4 bytes
    calls(shape, tokens, depth): kernel calls of one layer for `tokens` new tokens at `depth`
    forward(shape), begin: names of its functions in engine.py, of a layer and before the first one
    kept(shape, b, n): values that one layer keeps of b windows of n tokens while it is trained,
        besides what its calls put out
    folder: where its reference.py and engine.py are; options: what a named variant sets there
    """

    name: str
    folder: str
    tensors: Callable[[Shape], tuple[Tensor, ...]]
    state_values: Callable[[Shape, int], int]
    calls: Callable[[Shape, int, int], tuple[Call, ...]]
    source: str
    forward: Callable[[Shape], str] = lambda shape: "forward"
    begin: str = "begin"
    kept: Callable[[Shape, int, int], int] = lambda shape, b, n: 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffn:
    """Works on each token alone: the torch-free half of an ffn folder.

    calls(shape, tokens, active): kernel calls of one layer; `active` is the mean fraction of
    its groups that run, 1 for a dense one
    kept(shape, b, n): as of a Mixer
    """

    name: str
    tensors: Callable[[Shape], tuple[Tensor, ...]]
    calls: Callable[[Shape, int, float], tuple[Call, ...]]
    source: str
    kept: Callable[[Shape, int, int], int] = lambda shape, b, n: 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a format rounds weights to: a whole level times the scale of its group of columns.

    low, high: the levels there are; group: columns that share a float16 scale
    store(levels (m, groups * group), scales (m, groups) float16) -> arrays as stored on disk
    """

    low: int
    high: int
    group: int
    store: Callable[[Array, Array], Mapping[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one weight matrix (rows, columns) is stored, laid out and multiplied.

    pack(weights) -> arrays as stored on disk: "" is the main one, others are suffixes ("scale")
    unpack(arrays, shape) -> the float32 weights those arrays stand for
    cut(arrays, rows, columns) -> the arrays of that part, rounded no further
    layout(arrays, shape) -> one stream of bytes in the order the kernel reads it
    layout_bytes(rows, columns): length of that stream, for weights that do not depend on data
    kernel: the kernel file whose `quantise`, `multiply` and `lookup` the engine calls
    bits: stored per weight, scales included; rtol: of a matrix-vector product against float64 on
    the unpacked weights
    """

    name: str
    summary: str
    pack: Callable[[Array], Mapping[str, Array]]
    unpack: Callable[[Mapping[str, Array], tuple[int, int]], Array]
    cut: Callable[[Mapping[str, Array], slice, slice], Mapping[str, Array]]
    layout: Callable[[Mapping[str, Array], tuple[int, int]], Array]
    layout_bytes: Callable[[int, int], int]
    kernel: str
    arithmetic: Literal["float32", "int8"]
    bits: float
    rtol: float
    source: str
    density: float = 1.0  # share of the weights that is stored and multiplied
    by_rows: bool = True  # rows are packed each by itself, along the first axis of every array
    grid: Grid | None = None  # for what chooses levels and scales itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """Turns the checkpoint of a recipe so far into the one after this step.

    apply(checkpoint, recipe, progress): `recipe` names the seed, corpus and budget of the result;
    progress(stage, done, total) is told how far it is. It may train, so it imports PyTorch inside.
    reshape(shape) -> the shape after it, known without doing it
    packs: the format it stores the matrices inside layers in, "" for none; a format that follows
        stores the others
    tokens: what it trains on, unless the recipe's tuning_tokens say otherwise
    taught: whether it needs the recipe's teacher, and trains a new student as long as the first
    """

    name: str
    summary: str
    reshape: Callable[[Shape], Shape]
    apply: Callable[[Checkpoint, Recipe, Callable[[str, int, int], None]], Checkpoint]
    source: str
    packs: str = ""
    tokens: int = 0
    taught: bool = False


class Opened(Protocol):
    """A checkpoint that an engine has loaded, with the context it has seen so far."""

    def feed(self, tokens: Sequence[int]) -> Array:
        """Read tokens; the logits (vocabulary,) after the last one, float32."""

    def step(self, token: int) -> Array:
        """The logits (vocabulary,) after one more token; valid until the next call."""

    def reset(self) -> None:
        """Forget the context."""

    def close(self) -> None:
        """Give memory and threads back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What runs a checkpoint: ours, or a peer that other people use.

    packages: what must be importable, () for ours
    forms: how it can hold the weights, name -> a line on it; one of our formats keeps its name
    about() -> one line: version, build flags, instruction sets, what it repacks, how it waits
    open(checkpoint, room, threads, form): raises BadInput for what it cannot run
    """

    name: str
    summary: str
    packages: tuple[str, ...]
    forms: Mapping[str, str]
    about: Callable[[], str]
    open: Callable[[Checkpoint, int, int, str], Opened]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    name: str
    unit: str
    better: Literal["lower", "higher"]
    value: Callable[[Row], float | None]  # None: this row cannot tell
