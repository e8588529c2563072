"""train.fit(mesh=): from eight devices the figures of one, and what it refuses."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from jaxbp import train

CHILD = pathlib.Path(__file__).with_name("split.py")


@pytest.fixture(scope="module")
def said():
    """Of every check, in one process of eight devices."""
    flags = "--xla_force_host_platform_device_count=8"
    root = str(CHILD.parents[2])
    done = subprocess.run(
        [sys.executable, CHILD],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "checks",
    [
        "line",  # the batch over eight devices, by every gradient and kind of data
        "plane",  # over two, the parameters over four
        "planted",  # gradients summed twice, not at all, or off: told from rounding
        "split",  # every device has its own rows, and the parameters' parts stay
        "unsplit",  # where it has them all, that shows
        "resumed",
        "judged",
    ],
)
def test_eight_devices_do_what_one_does(said, checks):
    found = {name: text for name, text in said.items() if name.startswith(checks)}
    assert found
    assert not any(found.values()), found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("all rows", "batch[0] to be of rows that mesh's 8 along 'batch' divide; got "),
        (
            "batch size",
            "got float64 (12, 6): take a multiple of 8 rows, by batch_size=",
        ),
        ("made", "batch[0] to be of rows that mesh's 8 along 'batch' divide; got "),
        ("idle axis", "mesh to be of 'batch' and axes that parameters are split along"),
        ("another mesh", "params[0]['b'] to be split over `mesh` alone; got Named"),
    ],
)
def test_what_eight_devices_cannot_share_is_refused(said, name, message):
    assert said[f"refused, {name}"].startswith("jaxbp.fit: expected ")
    assert message in said[f"refused, {name}"]


@pytest.mark.parametrize(
    ("mesh", "error", "message"),
    [
        (8, TypeError, "mesh to be a jax.sharding.Mesh; got int 8: jax.make_mesh(("),
        (("rows",), ValueError, "an axis 'batch', along which batches are split; got "),
        (("batch", "rows"), ValueError, "got 'rows', which none of them is"),
    ],
)
def test_what_is_no_mesh_for_it_is_refused(mesh, error, message):
    if isinstance(mesh, tuple):
        mesh = jax.make_mesh((1,) * len(mesh), mesh)
    with pytest.raises(error) as caught:
        train.fit(
            lambda params, batch: ((params - batch) ** 2).mean(),
            np.zeros(()),
            np.ones(4),
            optax.sgd(0.1),
            steps=1,
            mesh=mesh,
        )
    assert str(caught.value).startswith("jaxbp.fit: expected ")
    assert message in str(caught.value)
