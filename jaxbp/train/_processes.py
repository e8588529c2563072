"""What processes that train together tell one another, and what one does for all.

Every function here that speaks to the others is called by all of them, in one order.
"""

import contextlib
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxbp._errors import argument_error, first_line
from jaxbp.train._about import About, described, first_difference, marked

T = TypeVar("T")
_BLOCK = 1 << 26  # bytes sent at once
_ROUND = 256  # lengths are made multiples of it: each compiles a program of its own
_LOST = re.compile(r"gloo|nccl|connection (reset|closed)|heartbeat|unavailable", re.I)


def is_first() -> bool:
    """Whether this process prints, saves and writes for all of them."""
    return jax.process_index() == 0


def everyones(value: T) -> list[T]:
    """What each process gives, in the order of their numbers."""
    if jax.process_count() == 1:
        return [value]
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([mine.size], np.int32))
    room = -(-int(lengths.max()) // _ROUND) * _ROUND
    rows = multihost_utils.process_allgather(np.pad(mine, (0, room - mine.size)))
    pairs = zip(rows, lengths.ravel(), strict=True)
    return [pickle.loads(row[:length].tobytes()) for row, length in pairs]


def of_first(make: Callable[[], T]) -> T:
    """What process 0 makes, in every process; what it raises as well."""
    if jax.process_count() == 1:
        return make()
    made, error = None, None
    if is_first():
        try:
            made = make()
        except Exception as raised:
            error = raised
    made, told = _broadcast((made, error))
    if error or told:
        raise error or told  # process 0's own has its traceback
    return made


def agreed(pressed: bool, figures: dict[str, float]) -> tuple[bool, dict[str, float]]:
    """Whether a key was pressed at any process, and process 0's figures."""
    told = everyones((pressed, figures))
    return any(at for at, _ in told), told[0][1]


def check_equal(params: Any, state: Any, data: Any, **options: Any) -> None:
    """ValueError where processes were given different things, naming the first."""
    if jax.process_count() == 1:
        return
    about: About = {name: described(value) for name, value in options.items()}
    about |= {"params": marked(params), "state": marked(state), "data": marked(data)}
    first, *others = everyones(about)
    for k, other in enumerate(others, 1):
        if found := first_difference(first, other):
            name, at_first, here = found
            expected = f"the same in every process, {at_first} as in process 0"
            mend = "give every process the same, and all of it"
            got = f"{here} in process {k}"
            raise argument_error("fit", name, expected, got, mend)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """A RuntimeError that says so where another process is lost."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if jax.process_count() == 1 or not _LOST.search(str(error)):
            raise
        got = f"one that is lost: {first_line(error).rstrip('.')}"
        mend = "start all of them again, with resume=True where checkpoints were saved"
        raise argument_error(
            "fit", "every process", "there to the end", got, mend, kind=RuntimeError
        ) from error


def _broadcast(value: Any) -> Any:
    """Process 0's, in blocks."""
    data = np.frombuffer(pickle.dumps(value) if is_first() else b"", np.uint8)
    send = multihost_utils.broadcast_one_to_all
    blocks, rest = map(int, send(np.array(divmod(data.size, _BLOCK), np.int32)))
    sizes = [_BLOCK] * blocks + [rest]
    starts = np.cumsum([0, *sizes])
    parts = [
        np.asarray(
            send(data[at : at + n] if is_first() else np.zeros(n, np.uint8))
        ).tobytes()
        for at, n in zip(starts, sizes, strict=False)
    ]
    return pickle.loads(b"".join(parts))
