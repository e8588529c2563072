"""When the host has something to do, and when a run is over."""

import math
import numbers

from jaxbp._arguments import check_function, whole
from jaxbp._errors import argument_error, describe
from jaxbp.train._loop import Carry

_ENTRIES = 100  # of the history, where log_every is left out
_STEPS = 1000  # between them, where nobody says how many steps there are
_SECONDS = 0.2  # of a chunk of several entries
_MOST = 2**31 - 1  # steps: they are counted in 32 bits


class Ends:
    """The steps after which the host has something to do, and those that are saved.

    Entries of the history that nobody waits for are written down in the program, as
    many in a chunk as take it about as long as a person waits.
    """

    def __init__(
        self, total: int | None, log_every: int, saved: int | None, *every: int
    ):
        self.log_every = log_every
        self._total, self._saved, self._every = total, saved, every
        self._entries = 1

    def after(self, step: int) -> int:
        entry = step - step % self.log_every + self.log_every * self._entries
        ends = [entry, *(step - step % n + n for n in self._every)]
        return min(ends if self._total is None else [*ends, self._total])

    def saves(self, step: int) -> bool:
        return self._saved is None or step % self._saved == 0

    def paced(self, per_second: float, room: int) -> None:
        """By the steps a second of the last chunk."""
        entries = int(min(per_second * _SECONDS / self.log_every, room))
        self._entries = max(1, entries)


def ends_of(total, log_every, evaluate, asked, is_heard: bool) -> Ends:
    """Of entries every so many steps, evaluations, and checkpoints.

    `is_heard`: somebody waits for every entry.
    """
    if log_every is None:
        log_every = _STEPS if total is None else max(1, -(-total // _ENTRIES))
    log_every = whole("fit", "log_every", log_every, 1, _MOST)
    every, saved = [], asked and asked.every
    if evaluate is not None:
        if not isinstance(evaluate, tuple) or len(evaluate) != 2:
            expected = "(every, function)"
            raise argument_error(
                "fit", "evaluate", expected, describe(evaluate), kind=TypeError
            )
        every.append(whole("fit", "evaluate[0]", evaluate[0], 1))
        check_function("fit", "evaluate[1]", evaluate[1])
    if saved is not None:
        every.append(saved)
    if is_heard or (asked and saved is None):
        every.append(log_every)
    return Ends(total, log_every, saved, *every)


def total_of(steps, epochs, loss_below, per_epoch: int | None) -> int | None:
    """Steps at most; None where only the loss ends the run."""
    if steps is epochs is loss_below is None:
        expected, mend = "at least one", "give steps=, epochs= or loss_below="
        raise argument_error("fit", "conditions to stop by", expected, "none", mend)
    if loss_below is not None:
        number = isinstance(loss_below, numbers.Real)
        if not number or math.isnan(loss_below):  # pyright: ignore - it is one
            got = describe(loss_below)
            raise argument_error("fit", "loss_below", "a real number", got)
    counts = []
    if steps is not None:
        counts.append(whole("fit", "steps", steps, 0, _MOST))
    if epochs is not None:
        if per_epoch is None:
            got, mend = "a function, whose data has no end", "give steps="
            expected = "arrays, with epochs="
            raise argument_error("fit", "data", expected, got, mend)
        passes = whole("fit", "epochs", epochs, 0, _MOST // per_epoch)
        counts.append(passes * per_epoch)
    return min(counts) if counts else None


def reason(carry: Carry, total, steps, loss_below, judge) -> tuple[Carry, str]:
    """Why the run is over, "" where it is not."""
    done = int(carry.step)
    if carry.failed:
        return judge(carry)
    if carry.met:
        said = f"loss_below: {float(carry.loss):.6g} < {loss_below:g} at step {done:,}"
        return carry, said
    if total is not None and done >= total:
        return carry, "steps" if total == steps else "epochs"
    return carry, ""
