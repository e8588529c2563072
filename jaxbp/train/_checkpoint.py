"""Checkpoints: a run's newest states in a folder, each whole or passed over."""

import contextlib
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from jaxbp._arguments import whole
from jaxbp._errors import argument_error, describe, first_line
from jaxbp.train._about import About, first_difference
from jaxbp.train._loop import Carry
from jaxbp.train._mesh import Layout, is_key, key_data, wrap_key_data
from jaxbp.train._processes import is_first, of_first

KEPT = 3  # the newest ones
History = list[dict[str, Any]]


class Asked(NamedTuple):
    """Where checkpoints lie, and after how many steps each: None with every entry."""

    folder: pathlib.Path
    every: int | None


class Checkpoints:
    """A folder that orbax keeps.

    Orbax writes beside and renames: what was interrupted has another name and is not
    found. One that was found and cannot be read is set aside under a name of its own.
    Of several processes the first alone touches the folder, for all of them. Arrays are
    saved whole: a run may go on over another mesh.
    """

    def __init__(self, folder: pathlib.Path, about: About, layout: Layout):
        self._folder, self._about, self._layout = folder, about, layout
        self._manager: Any = None  # but in the first process
        of_first(self._open)

    def _open(self) -> None:
        ocp = _orbax()
        alone = ocp.options.MultiprocessingOptions(
            active_processes={0}, barrier_sync_key_prefix="jaxbp"
        )
        several: dict[str, Any] = {"multiprocessing_options": alone}
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            create=False,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
            **(several if jax.process_count() > 1 else {}),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __bool__(self) -> bool:
        return of_first(lambda: bool(self._manager.all_steps()))

    def newest(self, like: Carry) -> tuple[Carry, History]:
        """The newest state that can be read, in the place of `like`, and its history.

        Raises:
            ValueError: it is another run's; none can be read.
        """
        named = _named(self._layout.whole(like))
        found, history = of_first(lambda: self._newest(named))
        leaves, tree = jax.tree.flatten(like)
        leaves = [_unnamed(found.get(str(k)), x) for k, x in enumerate(leaves)]
        carry: Carry = self._layout.like(like, jax.tree.unflatten(tree, leaves))
        if bool(carry.met) or bool(carry.failed):  # what stopped it is tried again
            history = history[:-1]
            carry = carry._replace(met=like.met, failed=like.failed, apart=like.apart)
        return carry, history

    def _newest(self, like: dict[str, Any]) -> tuple[dict[str, Any], History]:
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
                carry = self._read(step, carry=_orbax().args.StandardRestore(like))
            except Exception as error:
                torn.append(step)
                _say(f"the checkpoint of step {step:,} is torn: {first_line(error)}")
                continue
            self._set_aside(torn)
            _say(f"resumed after step {step:,} of {self._folder}")
            return carry["carry"], history
        got = f"{len(torn)} in {self._folder}, all of them torn"
        mend = "begin anew in another folder"
        raise argument_error("fit", "checkpoint", "one that can be read", got, mend)

    def save(self, carry: Carry, history: History) -> None:
        """A checkpoint of the steps done so far; a warning where it can't be written.

        The older ones stand.
        """
        named = _named(self._layout.whole(carry))
        if is_first():
            self._save(int(carry.step), named, history)

    def _save(self, step: int, named: dict[str, Any], history: History) -> None:
        if step in self._manager.all_steps():  # where the run stopped before
            return
        args = _orbax().args
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
            warnings.warn(f"{said}; {stands}", RuntimeWarning, stacklevel=4)

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()

    def _read(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=_orbax().args.Composite(**items))

    def _check(self, then: About) -> None:
        if found := first_difference(then, self._about):
            name, before, given = found
            expected = f"{before}, as in {self._folder}"
            mend = "give what the run began with, or take another folder"
            raise argument_error("fit", name, expected, given, mend)

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
    if not isinstance(resume, bool):
        got = describe(resume)
        raise argument_error("fit", "resume", "True or False", got, kind=TypeError)
    if checkpoint is None:
        if resume:
            expected, mend = "a folder, with resume=True", "give checkpoint=folder"
            raise argument_error("fit", "checkpoint", expected, "None", mend)
        return None
    pair = isinstance(checkpoint, tuple) and len(checkpoint) == 2
    every, folder = checkpoint if pair else (None, checkpoint)
    if every is not None:
        every = whole("fit", "checkpoint[0]", every, 1)
    if not isinstance(folder, (str, os.PathLike)) or folder == "":
        expected, got = "a folder or (every, folder)", describe(checkpoint)
        raise argument_error("fit", "checkpoint", expected, got, kind=TypeError)
    _orbax()
    path = pathlib.Path(folder).expanduser().absolute()
    of_first(lambda: _probe(path))
    return Asked(path, every)


def _probe(folder: pathlib.Path) -> None:
    probe = folder / f".jaxbp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        got = f"{folder}: {first_line(error)}"
        raise argument_error(
            "fit", "checkpoint", "a folder that can be written", got
        ) from error


def _named(carry: Carry) -> dict[str, Any]:
    """Its arrays by number, but for the empty ones, which orbax does not take."""
    leaves = enumerate(jax.tree.leaves(carry))
    return {str(k): key_data(x) for k, x in leaves if x.size}


def _unnamed(found: Any, like: Any) -> Any:
    if found is None:
        return like
    return wrap_key_data(found, like) if is_key(like) else found


def _plain(value: Any) -> Any:
    """Of JSON's own types."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    known = value is None or isinstance(value, (str, bool, int, float))
    return value if known else repr(value)


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
