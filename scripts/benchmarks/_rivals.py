"""What could train the tutorial's two-layer network in the place of `train.fit`."""

import ctypes
import functools
import pathlib
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import nets

NET = nets.mlp(
    (3, 4, 1),
    output="sigmoid",
    loss="half_squared_error",
    reduction="sum",
    bias=False,
)
_X = np.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
_Y = np.array([[0.0], [1], [1], [0]])
clock = time.process_time  # a busy machine stretches the wall's
_SLOW = 20  # times fewer steps of what goes step by step


class Problem(NamedTuple):
    """The network's data and first weights, in one dtype."""

    dtype: str
    steps: int
    x: np.ndarray
    y: np.ndarray
    hidden: np.ndarray
    output: np.ndarray

    @property
    def params(self):
        return {"w": jnp.asarray(self.hidden)}, {"w": jnp.asarray(self.output)}


class Ran(NamedTuple):
    """Microseconds a step, weights after the last (of all steps), what beside."""

    micros: float
    weights: Any
    beside: dict[str, float]


Way = Callable[[], Ran]


def problem_of(dtype: str, steps: int) -> Problem:
    """From the tutorial's own weights."""
    draw = np.random.RandomState(1).random_sample
    weights = (2 * draw(shape) - 1 for shape in ((3, 4), (4, 1)))
    return Problem(dtype, steps, *(a.astype(dtype) for a in (_X, _Y, *weights)))


def silent(gradient: Callable[..., Any]) -> Callable[..., Any]:
    """A gradient in the place of a loss and a gradient."""
    return lambda *args: ((), gradient(*args))


def looped(problem: Problem, slope: Callable[..., Any]) -> Way:
    """One compiled loop, of which nothing asks whether to stop."""

    @jax.jit
    def loop(params, batch):
        def step(_, carry):
            loss, grads = slope(carry[0], batch)
            return jax.tree.map(jnp.subtract, carry[0], grads), loss

        first = params, jax.tree.map(jnp.zeros_like, slope(params, batch)[0])
        return jax.lax.fori_loop(0, problem.steps, step, first)

    given = problem.params, (jnp.asarray(problem.x), jnp.asarray(problem.y))
    jax.block_until_ready(loop(*given))

    def way():
        start = clock()
        params, _ = jax.block_until_ready(loop(*given))
        return Ran((clock() - start) / problem.steps * 1e6, params, {})

    return way


def stepped(problem: Problem) -> Way:
    """A jitted step, its parameters donated, called from Python."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(params, batch):
        loss, grads = jax.value_and_grad(NET.loss)(params, batch)
        return jax.tree.map(jnp.subtract, params, grads), loss

    batch = jnp.asarray(problem.x), jnp.asarray(problem.y)
    step(jax.tree.map(jnp.copy, problem.params), batch)

    def way():
        params, steps = jax.tree.map(jnp.copy, problem.params), problem.steps // _SLOW
        start = clock()
        for _ in range(steps):
            params, _ = step(params, batch)
        jax.block_until_ready(params)
        return Ran((clock() - start) / steps * 1e6, None, {})

    return way


def in_numpy(problem: Problem) -> Ran:
    """The tutorial's statements as they stand, its derivative too."""
    x, y, hidden, output = (a.copy() for a in problem[2:])
    steps = problem.steps // _SLOW

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def s(x):
        return sigmoid(x) * (1 - sigmoid(x))

    start = clock()
    for _ in range(steps):
        h = sigmoid(x.dot(hidden))
        o = sigmoid(h.dot(output))
        d_output = (y - o) * s(o)
        d_hidden = d_output.dot(output.T) * s(h)
        output += h.T.dot(d_output)
        hidden += x.T.dot(d_hidden)
    return Ran((clock() - start) / steps * 1e6, None, {})


def in_torch(problem: Problem) -> Ran:
    """PyTorch's own gradient and optimiser, eager."""
    import torch  # pyright: ignore[reportMissingImports]

    x, y, *weights = (torch.tensor(a) for a in problem[2:])
    hidden, output = (w.requires_grad_() for w in weights)
    optimizer = torch.optim.SGD([hidden, output], lr=1.0)
    steps = problem.steps // _SLOW
    start = clock()
    for _ in range(steps):
        optimizer.zero_grad()
        o = torch.sigmoid(torch.sigmoid(x @ hidden) @ output)
        (0.5 * (y - o) ** 2).sum().backward()
        optimizer.step()
    return Ran((clock() - start) / steps * 1e6, None, {})


_SOURCE = r"""
#include <math.h>
void train(const REAL *restrict x, const REAL *restrict y, REAL *restrict hidden,
           REAL *restrict output, long steps) {
  for (long t = 0; t < steps; t++) {
    REAL h[4][4], d[4], slope_h[3][4] = {{0}}, slope_o[4] = {0};
    for (int n = 0; n < 4; n++) {
      REAL a = 0;
      for (int j = 0; j < 4; j++) {
        REAL z = 0;
        for (int i = 0; i < 3; i++) z += x[3 * n + i] * hidden[4 * i + j];
        h[n][j] = 1 / (1 + EXP(-z));
        a += h[n][j] * output[j];
      }
      REAL o = 1 / (1 + EXP(-a));
      d[n] = (y[n] - o) * (o * (1 - o));
    }
    for (int n = 0; n < 4; n++)
      for (int j = 0; j < 4; j++) {
        REAL e = d[n] * output[j] * (h[n][j] * (1 - h[n][j]));
        slope_o[j] += h[n][j] * d[n];
        for (int i = 0; i < 3; i++) slope_h[i][j] += x[3 * n + i] * e;
      }
    for (int j = 0; j < 4; j++) {
      output[j] += slope_o[j];
      for (int i = 0; i < 3; i++) hidden[4 * i + j] += slope_h[i][j];
    }
  }
}
"""


def in_c(problem: Problem, folder: pathlib.Path) -> Way:
    """The loop in scalar C, compiled into the folder by gcc."""
    real, exp = ("double", "exp") if problem.dtype == "float64" else ("float", "expf")
    source, library = folder / "loop.c", folder / "loop.so"
    source.write_text(f"#define REAL {real}\n#define EXP {exp}\n{_SOURCE}")
    flags = ["-O3", "-march=native", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run(["gcc", *flags, str(source), "-lm"], check=True)
    loop = ctypes.CDLL(str(library)).train

    def way():
        arrays = [a.copy() for a in problem[2:]]
        given = [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]
        start = clock()
        loop(*given, ctypes.c_long(problem.steps))
        micros = (clock() - start) / problem.steps * 1e6
        return Ran(micros, ({"w": arrays[2]}, {"w": arrays[3]}), {})

    return way
