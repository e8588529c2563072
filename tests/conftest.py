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


# Where tests share what takes long: the systems' graphs, the experiments' reports.
_TOGETHER = {"drawing", "experiments"}


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadfile`, but folders whose tests share go to one process whole."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid):
            folder = pathlib.PurePath(nodeid.split("::")[0]).parent.name
            return folder if folder in _TOGETHER else super()._split_scope(nodeid)

    return Together(config, log)


# What the instrument and the experiments say hangs on the last digits of what a user
# compiles; of everything else, what is marked `optimised`.
_OPTIMISED = {"instrument", "experiments"}


@pytest.hookimpl(tryfirst=True)  # before any fixture compiles
def pytest_runtest_setup(item):
    optimised = item.path.parent.name in _OPTIMISED
    unoptimised.switch(not (optimised or item.get_closest_marker("optimised")))
