"""Memory of `compare` on a network of 20 million parameters, beside one gradient's.

Each way runs in a process of its own: the most memory it ever holds, less what it held
when the float32 arguments stood ready. The C library is told to give freed memory back
at once, so that what is held counts, and not what it keeps in store. The gradient is
autodiff's in float64, compiled, its arguments cast up.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks._machine import described, machine
from jaxbp import autodiff, compare

_SIZES = (1000, 3600, 3600, 1000, 10)
_BATCH = 32
_BAR = 6.0
_GIVEN_BACK = 2**16  # bytes from which on freed memory is
_WAYS = ("gradient", "quick", "full")


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", nargs="+", choices=_WAYS[1:], default=_WAYS[1:], metavar="EFFORT")
    add("--rules", nargs="+", choices=("right", "wrong"), default=("right", "wrong"))
    add("--one", nargs=2, metavar=("WAY", "RULE"), help="in this process, as JSON")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.one:
        print(json.dumps(_one(*options.one)))
        return {}
    print(described())
    count = sum(i * o + o for i, o in itertools.pairwise(_SIZES))
    print(f"mlp {_SIZES}, {count:,} parameters, float32, batch {_BATCH}\n")
    gradient = _in_a_process("gradient", "right")
    print(f"one float64 gradient: {_shown(gradient)}")
    rows = []
    for way in options.only:
        for rule in options.rules:
            row = _in_a_process(way, rule)
            row["ratio"] = row["bytes"] / gradient["bytes"]
            rows.append(row)
            print(f"\ncompare, {way}, {rule} rule: {_shown(row)}", end=", ")
            print(f"{row['ratio']:.2f} times a gradient's (at most {_BAR:g})")
            print(f"{row['text']}", flush=True)
    return {"machine": machine(), "gradient": gradient, "rows": rows}


def _shown(row: dict[str, Any]) -> str:
    return f"{row['bytes'] / 2**20:,.0f} MiB, {row['seconds']:.1f} s"


def _in_a_process(way: str, rule: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks", "memory", "--one", way, rule]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(_GIVEN_BACK)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def _one(way: str, rule: str) -> dict[str, Any]:
    jax.config.update("jax_enable_compilation_cache", False)
    loss, args = _network(rule)
    jax.block_until_ready(args)
    before, start = _held(), time.perf_counter()
    text = _gradient(loss, args) if way == "gradient" else _compared(loss, args, way)
    seconds = time.perf_counter() - start
    return {
        "way": way,
        "rule": rule,
        "bytes": _most() - before,
        "seconds": seconds,
        "text": text,
    }


def _most() -> int:
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _held() -> int:
    """What is held now: making the arguments took more. Elsewhere than on Linux, the
    most so far."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _most()


def _gradient(loss, args) -> str:
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), args)
        jax.block_until_ready(jax.jit(jax.grad(autodiff(loss)))(*wide))
    return ""


def _compared(loss, args, effort) -> str:
    return str(compare(loss, *args, effort=effort))


def _network(rule: str):
    """A user's own network with its gradient by hand; "wrong": one w transposed."""

    @jax.custom_vjp
    def loss(params, x, y):
        return forward(params, x, y)[0]

    def forward(params, x, y):
        hs = [x]
        for w, b in params:
            hs.append(jnp.tanh(hs[-1] @ w + b))
        return jnp.sum((hs[-1] - y) ** 2), (params, hs, y)

    def backward(res, g):
        params, hs, y = res
        h_bar, bars = 2 * g * (hs[-1] - y), []
        y_bar = -h_bar
        for k in reversed(range(len(params))):
            a_bar = (1 - hs[k + 1] ** 2) * h_bar
            w_bar = hs[k].T @ a_bar
            if rule == "wrong" and w_bar.shape[0] == w_bar.shape[1]:
                w_bar = w_bar.T
            bars.append((w_bar, a_bar.sum(0)))
            h_bar = a_bar @ params[k][0].T
        return bars[::-1], h_bar, y_bar

    loss.defvjp(forward, backward)
    keys = iter(jax.random.split(jax.random.key(0), len(_SIZES) + 1))
    params = [
        (jax.random.normal(next(keys), (i, o)) / i**0.5, jnp.zeros(o))
        for i, o in itertools.pairwise(_SIZES)
    ]
    x = jax.random.normal(next(keys), (_BATCH, _SIZES[0]))
    return loss, (params, x, jnp.ones((_BATCH, _SIZES[-1])))
