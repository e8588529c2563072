"""pytest's `assert_gradients` fixture; it is there as soon as jaxbp is installed."""

import pytest


@pytest.fixture(scope="session")
def assert_gradients():
    """`jaxbp.assert_gradients`: a gradient that is not right fails the test.

    The report of the test is the comparison's table.
    """
    # Every pytest run in the environment imports this file: JAX only where it is asked.
    from jaxbp import assert_gradients

    return assert_gradients
