"""Arms of a branch, taken or not: plain data, and the line that an engineer reads."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 4  # arms never taken, in one line


@dataclass(frozen=True)
class Branch:
    """One place where a program chooses: cond, switch, where, max, min or clip.

    `taken` tells of each arm whether any point took it: of a max or min that its first
    or its second argument was chosen, of a clip below, inside and above. `rules` are
    the arms that hold a hand-written rule.
    """

    site: str
    kind: str
    taken: tuple[bool, ...]
    rules: tuple[int, ...] = ()

    @property
    def never(self) -> list[int]:
        return [arm for arm, taken in enumerate(self.taken) if not taken]


def summary(branches: Sequence[Branch]) -> str:
    """One line: how many arms were taken, and which never."""
    total = sum(len(b.taken) for b in branches)
    if not total:
        return ""
    # A line of Python may hold several, those of JAX's own functions among them.
    never = Counter(
        f"{b.kind} at {short(b.site)}, arm {arm}" for b in branches for arm in b.never
    )
    line = f"{total - never.total()} of {total} arms taken"
    if never:
        some = list(never.items())[:_SHOWN]
        told = [f"{arm} ({n} times)" if n > 1 else arm for arm, n in some]
        line += f"; never: {'; '.join(told)}"
    more = len(never) - _SHOWN
    return line + (f"; and {more} more" if more > 0 else "")


def short(site: str) -> str:
    return os.path.basename(site) or "an unknown line"
