"""Checkpoints: a run's newest states in a folder, each whole or passed over."""

import contextlib
import os
import pathlib
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp._arguments import whole
from jaxbp._errors import argument_error, describe, first_line
from jaxbp.train._loop import Carry
from jaxbp.train._mesh import Layout

KEPT = 3  # the newest ones
About = dict[str, dict[str, str]]
History = list[dict[str, Any]]


class Asked(NamedTuple):
    """Where checkpoints lie, and after how many steps each: None with every entry."""

    folder: pathlib.Path
    every: int | None


class Checkpoints:
    """A folder that orbax keeps.

    Orbax writes beside and renames: what was interrupted has another name and is not
    found. One that was found and cannot be read is set aside under a name of its own.
    """

    def __init__(self, folder: pathlib.Path, about: About, layout: Layout):
        self._folder, self._about, self._layout = folder, about, layout
        self._open()

    def _open(self) -> None:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            create=True,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __bool__(self) -> bool:
        return bool(self._manager.all_steps())

    def newest(self, like: Carry) -> tuple[Carry, History]:
        """The newest state that can be read, in the place of `like`, and its history.

        Raises:
            ValueError: it is another run's; none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        torn = []
        for step in steps:
            try:
                run = self._read(step, run=_orbax().args.JsonRestore())["run"]
                about, history = run["about"], run["history"]
            except Exception as error:
                torn.append(step)
                _say(f"the checkpoint of step {step:,} is torn: {first_line(error)}")
                continue
            self._check(about)
            try:
                carry = self._carry(step, like)
            except Exception as error:
                torn.append(step)
                _say(f"the checkpoint of step {step:,} is torn: {first_line(error)}")
                continue
            self._set_aside(torn)
            _say(f"resumed after step {step:,} of {self._folder}")
            return carry, history
        got = f"{len(torn)} in {self._folder}, all of them torn"
        mend = "begin anew in another folder"
        raise argument_error("fit", "checkpoint", "one that can be read", got, mend)

    def save(self, carry: Carry, history: History) -> None:
        """A checkpoint of the steps done so far; a warning where it can't be written.

        The older ones stand.
        """
        args, step = _orbax().args, int(carry.step)
        named = _named(self._layout.whole(carry))
        run = {"about": self._about, "history": _plain(history)}
        try:
            self._manager.save(
                step,
                args=args.Composite(
                    carry=args.StandardSave(named), run=args.JsonSave(run)
                ),
                force=True,
            )
        except Exception as error:  # a full disk, as the file system names it
            self.close()
            self._open()  # which clears what was begun
            older = self._manager.latest_step()
            stands = "none is older" if older is None else f"step {older:,}'s stands"
            said = f"train.fit: no checkpoint of step {step:,}: {first_line(error)}"
            warnings.warn(f"{said}; {stands}", RuntimeWarning, stacklevel=3)

    def close(self) -> None:
        self._manager.close()

    def _carry(self, step: int, like: Carry) -> Carry:
        restore = _orbax().args.StandardRestore(_named(self._layout.whole(like)))
        found = self._read(step, carry=restore)["carry"]
        leaves, tree = jax.tree.flatten(like)
        leaves = [found.get(str(k), x) for k, x in enumerate(leaves)]
        carry: Carry = self._layout.like(like, jax.tree.unflatten(tree, leaves))
        return carry._replace(met=like.met, failed=like.failed)  # it is tried again

    def _read(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=_orbax().args.Composite(**items))

    def _check(self, about: About) -> None:
        for what, now in self._about.items():
            then = about[what]
            for name in [*then, *(set(now) - set(then))]:
                before, given = (x.get(name, "nothing") for x in (then, now))
                if before != given:
                    expected = f"{before}, as in {self._folder}"
                    mend = "give what the run began with, or take another folder"
                    raise argument_error("fit", what + name, expected, given, mend)

    def _set_aside(self, torn: list[int]) -> None:
        if not torn:
            return
        self.close()
        for step in torn:
            (self._folder / str(step)).rename(self._folder / f"torn-{step}")
        self._open()


@contextlib.contextmanager
def opened(
    asked: Asked | None, resume: bool, about: About | None, layout: Layout
) -> Iterator[Any]:
    """The checkpoints that were asked for, or None.

    Raises:
        ValueError: the folder holds those of a run that shall not be resumed.
    """
    if asked is None or about is None:
        yield None
        return
    saved = Checkpoints(asked.folder, about, layout)
    try:
        if saved and not resume:
            got = f"{asked.folder}, which holds checkpoints"
            mend = "resume=True goes on with them, another folder begins anew"
            raise argument_error("fit", "checkpoint", "an empty folder", got, mend)
        yield saved
    finally:
        saved.close()


def asked_for(checkpoint: Any, resume: bool) -> Asked | None:
    """The folder, once something has been written into it and taken away again.

    Raises:
        ValueError: nothing can be written there; `resume` without a folder.
        TypeError: neither a path nor a pair of a path and a whole number.
        ModuleNotFoundError: orbax is not installed.
    """
    if checkpoint is None:
        if resume:
            expected, mend = "a folder, with resume=True", "give checkpoint=folder"
            raise argument_error("fit", "checkpoint", expected, "None", mend)
        return None
    pair = isinstance(checkpoint, tuple) and len(checkpoint) == 2
    every, folder = checkpoint if pair else (None, checkpoint)
    if every is not None:
        every = whole("fit", "checkpoint[0]", every, 1)
    if not isinstance(folder, (str, os.PathLike)):
        expected, got = "a folder or (every, folder)", describe(checkpoint)
        raise argument_error("fit", "checkpoint", expected, got, kind=TypeError)
    _orbax()
    path = pathlib.Path(folder).expanduser().absolute()
    probe = path / f".jaxbp-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        got = f"{path}: {first_line(error)}"
        raise argument_error(
            "fit", "checkpoint", "a folder that can be written", got
        ) from error
    return Asked(path, every)


def about(params: Any, opt_state: Any, state: Any, data: Any, **how: Any) -> About:
    """What a run must have in common with the one that it goes on with."""
    kind = "a function" if callable(data) else "arrays"
    return {
        "": {"data": kind} | {name: str(value) for name, value in how.items()},
        "params": _described(params),
        "the optimizer's state": _described(opt_state),
        "state": _described(state),
        "data": {} if callable(data) else _marked(data),
    }


def _described(tree: Any) -> dict[str, str]:
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): describe(x) for path, x in pairs}


def _marked(data: Any) -> dict[str, str]:
    """Shapes, dtypes and what tells one content from another."""

    def marked(x):
        keys = jnp.issubdtype(x.dtype, jax.dtypes.extended)
        values = np.ascontiguousarray(jax.random.key_data(x) if keys else x)
        return f"{describe(x)} of checksum {zlib.crc32(values.view(np.uint8).data):08x}"

    pairs = jax.tree_util.tree_leaves_with_path(data)
    return {jax.tree_util.keystr(path): marked(jnp.asarray(x)) for path, x in pairs}


def _named(carry: Carry) -> dict[str, Any]:
    """Its arrays by number, but for the empty ones, which orbax does not take."""
    return {str(k): x for k, x in enumerate(jax.tree.leaves(carry)) if x.size}


def _plain(value: Any) -> Any:
    """Of JSON's own types."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _say(text: str) -> None:
    print(f"train.fit: {text}", file=sys.stderr, flush=True)


def _orbax() -> Any:
    try:  # a second to import: late
        import orbax.checkpoint as ocp
    except ModuleNotFoundError as error:
        mend = "pip install 'jaxbp[train]'"
        got = "no such module"
        raise argument_error(
            "fit", "checkpoint", "saved by orbax", got, mend, kind=type(error)
        ) from error
    return ocp
