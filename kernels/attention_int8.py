"""Causal attention of n new tokens over a key-value cache that already holds `depth` tokens.

    y[t,h] = sum_p softmax_p(q[t,h] . K[h',p] / sqrt(w)) V[h',p],   p <= depth + t

Sizes: see attention_over.py. The cache is int8 with one scale a token; queries are rounded to
int8, too.
"""

from __future__ import annotations

from kernels import caches
from kernels.attending import append_over, attend_over
from kernels.attention_over import attention

CACHE = caches.INT8
attend, append = attend_over(CACHE), append_over(CACHE)

SPEC = attention("attention_int8", CACHE, attend, append)
