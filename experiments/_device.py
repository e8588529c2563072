"""The device to compute on, by name."""

import contextlib
from contextlib import AbstractContextManager

import jax

_PLATFORMS = ("cpu", "gpu", "tpu")


def computing_on(name: str | None) -> AbstractContextManager:
    """A context in which JAX computes on `cpu`, `gpu`, or one of many, `gpu:1`.

    Without a name, JAX chooses.

    Raises:
        ValueError: there is no such device; saying which there are.
    """
    if name is None:
        return contextlib.nullcontext()
    platform, _, index = name.partition(":")
    there = [d for known in _PLATFORMS for d in _devices(known)]
    for place, device in enumerate(_devices(platform)):
        if (index or "0") == str(place):
            return jax.default_device(device)
    known = ", ".join(f"{d.platform}:{d.id}" for d in there)
    mend = "pip install 'jaxbp[cuda13]', or [cuda12] or [tpu], brings others"
    raise ValueError(f"expected --device to be one of {known}; got {name}: {mend}.")


def _devices(platform: str) -> list:
    try:
        return jax.devices(platform)
    except RuntimeError:  # there is none
        return []
