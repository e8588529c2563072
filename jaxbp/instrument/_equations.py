"""What an equation of a jaxpr computes, in a line of NumPy.

`KNOWN` maps the name of a primitive to a function of (params, *arrays); it answers None
where it does not know how.
"""

import math
from collections.abc import Callable

import numpy as np

LARGE = 2**14  # elements of one array, from which compiled code is the faster


def _over(reduction: Callable) -> Callable:
    return lambda p, x: reduction(x, axis=tuple(p["axes"]))


def _along(accumulate: Callable) -> Callable:
    def cumulative(p, x):
        x = np.flip(x, p["axis"]) if p["reverse"] else x
        x = accumulate(x, axis=p["axis"])
        return np.flip(x, p["axis"]) if p["reverse"] else x

    return cumulative


def _each(f: Callable[[float], float]) -> Callable:
    one_by_one = np.vectorize(f, otypes=[float])
    return lambda p, x: one_by_one(x) if x.dtype.kind == "f" else None


def _div(p, x, y):
    return x / y if x.dtype.kind in "fc" else None  # integers: C's, not Python's


def _round(p, x):
    return np.round(x) if int(p["rounding_method"]) == 1 else None  # ties to even


def _select(p, which, *cases):
    cases = cases if which.dtype != bool else cases[::-1]
    return np.where(which, *cases) if which.dtype == bool else np.choose(which, cases)


def _broadcast(p, x, *dynamic):
    shape = [1] * len(p["shape"])
    for axis, length in zip(p["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = length
    return np.broadcast_to(x.reshape(shape), p["shape"])


def _reshape(p, x, *dynamic):
    return x.reshape(p["new_sizes"]) if p["dimensions"] is None else None


def _iota(p, *dynamic):
    lengths = [1] * len(p["shape"])
    lengths[p["dimension"]] = -1
    along = np.arange(p["shape"][p["dimension"]]).reshape(lengths)
    return np.broadcast_to(along, p["shape"])


def _slice(p, x):
    strides = p["strides"] or (1,) * x.ndim
    bounds = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    return x[tuple(slice(*b) for b in bounds)]


def _window(x, sizes, starts):
    """Where a slice of these sizes begins: pushed back where it would not fit."""
    first = [
        int(np.clip(s, 0, n - size))
        for s, n, size in zip(starts, x.shape, sizes, strict=True)
    ]
    return tuple(slice(k, k + size) for k, size in zip(first, sizes, strict=True))


def _dynamic_slice(p, x, *starts):
    return x[_window(x, p["slice_sizes"], starts)]


def _dynamic_update_slice(p, x, new, *starts):
    x = x.copy()
    x[_window(x, new.shape, starts)] = new
    return x


def _pad(p, x, value):
    config = p["padding_config"]
    if any(low < 0 or high < 0 or inside for low, high, inside in config):
        return None
    widths = [(low, high) for low, high, _ in config]
    return np.pad(x, widths, constant_values=value)


def _sort(p, *operands):
    return [np.sort(operands[0], axis=p["dimension"])] if len(operands) == 1 else None


def _split(p, x):
    return np.split(x, np.cumsum(p["sizes"])[:-1], axis=p["axis"])


def _dot(p, x, y):
    """Batch axes first, then one matrix product; of large ones XLA has the faster."""
    if max(x.size, y.size) > LARGE:
        return None
    (of_x, of_y), (batch_x, batch_y) = p["dimension_numbers"]
    rest_x = [k for k in range(x.ndim) if k not in {*of_x, *batch_x}]
    rest_y = [k for k in range(y.ndim) if k not in {*of_y, *batch_y}]
    batch = [x.shape[k] for k in batch_x]
    n = math.prod(x.shape[k] for k in of_x)
    rows, columns = [x.shape[k] for k in rest_x], [y.shape[k] for k in rest_y]
    x = x.transpose([*batch_x, *rest_x, *of_x])
    y = y.transpose([*batch_y, *of_y, *rest_y])
    x = x.reshape([*batch, math.prod(rows), n])
    y = y.reshape([*batch, n, math.prod(columns)])
    return (x @ y).reshape([*batch, *rows, *columns])


def _first_best(best: Callable) -> Callable:
    return lambda p, x: best(x, axis=p["axes"][0])


_ELEMENTWISE: dict[str, Callable] = {
    **dict.fromkeys(("add", "add_any"), np.add),
    "sub": np.subtract,
    "mul": np.multiply,
    "pow": np.power,
    "rem": np.fmod,
    "max": np.maximum,
    "min": np.minimum,
    "atan2": np.arctan2,
    "neg": np.negative,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "cbrt": np.cbrt,
    "square": np.square,
    "is_finite": np.isfinite,
    "real": np.real,
    "imag": np.imag,
    "conj": np.conj,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "complex": lambda x, y: x + 1j * y,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    **dict.fromkeys(("copy", "copy_p", "name", "stop_gradient"), np.asarray),
}

KNOWN: dict[str, Callable] = {
    **{name: lambda p, *x, f=f: f(*x) for name, f in _ELEMENTWISE.items()},
    "div": _div,
    "round": _round,
    "select_n": _select,
    "dot_general": _dot,
    "erf": _each(math.erf),
    "erfc": _each(math.erfc),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "iota": _iota,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "sort": _sort,
    "dynamic_update_slice": _dynamic_update_slice,
    "split": _split,
    "integer_pow": lambda p, x: x ** p["y"] if x.dtype.kind in "fc" else None,
    "convert_element_type": lambda p, x: x if p["new_dtype"].kind == "c" else x.real,
    "optimization_barrier": lambda p, *x: list(x),
    "squeeze": lambda p, x: np.squeeze(x, axis=tuple(p["dimensions"])),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "stack": lambda p, *x: np.stack(x, axis=p["axis"]),
    "unstack": lambda p, x: list(np.moveaxis(x, p["axis"], 0)),
    "concatenate": lambda p, *x: np.concatenate(x, axis=p["dimension"]),
    "reduce_sum": _over(np.sum),
    "reduce_prod": _over(np.prod),
    "reduce_max": _over(np.max),
    "reduce_min": _over(np.min),
    "reduce_and": _over(np.all),
    "reduce_or": _over(np.any),
    "argmax": _first_best(np.argmax),
    "argmin": _first_best(np.argmin),
    "cumsum": _along(np.cumsum),
    "cumprod": _along(np.cumprod),
    "cummax": _along(np.maximum.accumulate),
    "cummin": _along(np.minimum.accumulate),
}
