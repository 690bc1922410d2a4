"""Where things are in the engine's arrays: the one vocabulary of plans, mixers and ffns.

A forward pass gets a few flat arrays. `dims` holds sizes and places in `scratch`, by the names
below; `offsets` holds, per layer, the place of each tensor (packed ones in `weights`, float32
ones in `small`) in the order of the spec, then of the layer's state in `state` (mixers only),
then where each tensor ends: its place + parts * the distance from one of its parts to the next.
"""

from __future__ import annotations

# tokens of one call in a prefill: enough to reuse each weight, few enough for caches
AT_ONCE = 96

# ---- sizes
WIDTH, HIDDEN, HEADS, KV_HEADS, HEAD_WIDTH, CHANNELS, GROUP, RANK, CHOSEN = range(9)
ROOM, CHUNK, VOCABULARY = 9, 10, 11  # tokens the cache can hold; most tokens of one call
# ---- places in scratch, and how far apart the parts of threads are
RESIDUAL = 12  # (chunk, width), shared: the stream that blocks add to
NORMED, NORMED_PITCH = 13, 14  # (threads, chunk, width): each thread norms for itself
WIDE = 15  # (chunk, widest), shared: projections of the input
MIXED = 16  # (chunk, widest), shared: what goes into the output projection
OWN, OWN_PITCH = 17, 18  # per thread: attention scores, scores of groups
TABLE, TABLE_PITCH = 19, 20  # per thread: rotary cosines and sines
TOKENS = 21  # (chunk,), shared: the tokens themselves, exact below 2^24
RAN = 22  # (chunk,), shared: groups of neurons each token ran, over all layers
PREPARED_PITCH = 23  # bytes of `prepared` per thread; starts at 0
DIMS = 24

# ---- places in `small` of what every layer shares
EPSILON = 0  # of every RMSNorm of the block
SPEEDS = 1  # (head_width,): rotary speeds, high parts then low ones; see kernels.rope.split
