"""The table of the subjects that are measured beside autodiff of a plain form."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _pytorch
from benchmarks._machine import described, machine
from jaxbp import cost
from jaxbp.instrument import Cost

_PEAK = 2048  # rows and columns of the square product that is the peak


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help="names of rows to measure")
    add("--rounds", type=int, default=11, help="in which the two sides run (11)")
    add("--dtype", choices=("float32", "bfloat16", "float64"), default="float32")
    add("--device", help="a platform of JAX's, such as cpu or gpu")


def run(
    options: argparse.Namespace,
    cases: Iterable[Any],
    subject: str,
    asked: Callable[[Any], str] = lambda case: case.name,
) -> dict[str, Any]:
    """Measure the cases whose `asked(case)` is among `--only`, and print their rows."""
    if options.device:
        jax.config.update("jax_platforms", options.device)
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    print(described())
    peak = _peak(options.dtype)
    print(f"peak {peak / 1e9:.0f} GFLOP/s in {options.dtype}, a product of {_PEAK}³\n")
    print(_line("", "time", "temp", "residuals", "FLOPs", "peak", "ulp", "auto's"))
    peer_of = _pytorch.peers(subject, options.dtype)
    rows = []
    for case in cases:
        if options.only and asked(case) not in options.only:
            continue
        for size, inputs in case.cost.items():
            args = inputs(jax.random.key(0), jnp.dtype(options.dtype))
            rows += _rows(case, size, args, peer_of(case), options.rounds, peak)
    print(f"\n{described()}")
    return {"machine": machine(), "dtype": options.dtype, "peak": peak, "rows": rows}


def _rows(case, size: str, args: tuple, peer, rounds: int, peak: float) -> list[dict]:
    measured = cost(case.function, *args, reference=case.plain, rounds=rounds)
    hand, auto = _errors(case, args)
    share = measured.manual.flops / measured.manual.run_seconds / peak
    row = _row(case.name, size, "plain", measured)
    row |= {"peak": share, "ulp": hand, "auto_ulp": auto, "why": case.why}
    print(_told(f"{case.name} {size}", row), flush=True)
    rows = [row]
    for name, rival in case.rivals.items():
        beside = cost(case.function, *args, reference=rival, rounds=rounds)
        rows.append(_row(case.name, size, name, beside))
        print(_told(f"  beside {name}", rows[-1]), flush=True)
    if peer:
        quartiles = np.quantile(
            _pytorch.ratios(case, peer, args, rounds), [0.5, 0.25, 0.75]
        )
        row = {"name": case.name, "size": size, "rival": "PyTorch, eager"}
        row |= {"time": quartiles[0], "time_quartiles": tuple(quartiles[1:])}
        rows.append(row)
        print(_told(f"  beside {row['rival']}", row), flush=True)
    return rows


def _row(name: str, size: str, rival: str, measured: Cost) -> dict[str, Any]:
    ratios = measured.ratios
    return {
        "name": name,
        "size": size,
        "rival": rival,
        "time": measured.time.median,
        "time_quartiles": (measured.time.lower, measured.time.upper),
        "temp": ratios["temp_bytes"],
        "temp_bytes": (measured.manual.temp_bytes, measured.auto.temp_bytes),
        "residuals": ratios["residual_bytes"],
        "residual_bytes": (
            measured.manual.residual_bytes,
            measured.auto.residual_bytes,
        ),
        "flops": ratios["flops"],
    }


def _errors(case, args: tuple) -> tuple[float, float]:
    """The worst cotangent's error, hand-written and autodiff's of the plain form."""
    with jax.enable_x64(True):
        truth = _cotangents(case.plain, jax.tree.map(_widened, args))
    sides = (_cotangents(f, args) for f in (case.function, case.plain))
    hand, auto = (
        max(_ulps(a, t) for a, t in zip(side, truth, strict=True)) for side in sides
    )
    return hand, auto


def _cotangents(f: Callable[..., Any], args: tuple) -> list[np.ndarray]:
    leaves, tree = jax.tree.flatten(args)
    floats = [x for x in leaves if _is_floating(x)]

    @jax.jit
    def pull(*floats):
        def call(*floats):
            rest = iter(floats)
            merged = [next(rest) if _is_floating(x) else x for x in leaves]
            ys = jax.tree.leaves(f(*jax.tree.unflatten(tree, merged)))
            return [y for y in ys if _is_floating(y)]

        ys, back = jax.vjp(call, *floats)
        rng = np.random.default_rng(0)
        return back([jnp.asarray(rng.standard_normal(y.shape), y.dtype) for y in ys])

    return [np.asarray(bar) for bar in pull(*floats)]


def _ulps(bar: np.ndarray, truth: np.ndarray) -> float:
    unit = float(jnp.finfo(bar.dtype).eps) * np.max(np.abs(truth), initial=0.0)
    error = np.max(np.abs(bar.astype(np.float64) - truth), initial=0.0)
    return float(error / unit) if unit else 0.0


def _widened(x: Any) -> Any:
    return jnp.asarray(x, jnp.float64) if _is_floating(x) else x


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _peak(dtype: str) -> float:
    """FLOP/s of the fastest of a few large matrix products."""
    a = jnp.ones((_PEAK, _PEAK), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * _PEAK**3 / statistics.median(seconds)


def _told(name: str, row: dict[str, Any]) -> str:
    lower, upper = row["time_quartiles"]
    ratios = (_ratio(row.get(k)) for k in ("temp", "residuals", "flops"))
    others = (row.get(k) for k in ("peak", "ulp", "auto_ulp"))
    peak, *ulps = others
    return _line(
        name,
        f"{row['time']:.2f} [{lower:.2f}, {upper:.2f}]",
        *ratios,
        "" if peak is None else f"{peak:.0%}",
        *("" if u is None else f"{u:.1f}" for u in ulps),
    )


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _line(name, clock, *rest) -> str:
    return f"{name:52}{clock:>20}" + "".join(f"{x:>10}" for x in rest)
