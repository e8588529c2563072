"""Every test compares in float64, under strict promotion, on one device."""

import os
import pathlib

import jax
import pytest

from tests import unoptimised

_CACHE = pathlib.Path(__file__).parent.parent / ".cache" / "jax"
# In the environment, for the processes that tests start.
os.environ.setdefault("JAXBP_CACHE", str(_CACHE))
jax.config.update("jax_compilation_cache_dir", os.environ["JAXBP_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
unoptimised.switch(True)


@pytest.fixture(autouse=True)
def _float64_and_strict():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


# What the instrument and the experiments say hangs on the last digits of what a user
# compiles; of everything else, what is marked `optimised`.
_OPTIMISED = {"instrument", "experiments"}


@pytest.hookimpl(tryfirst=True)  # before any fixture compiles
def pytest_runtest_setup(item):
    optimised = item.path.parent.name in _OPTIMISED
    unoptimised.switch(not (optimised or item.get_closest_marker("optimised")))
