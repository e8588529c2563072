"""What JAX accepts in silence: two runs, cotangents of zeros, transformations."""

import os
import subprocess
import sys
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from jaxbp import compare

X = jax.random.normal(jax.random.key(0), (4, 3))

VJP3 = os.environ.get("JAX_CUSTOM_VJP3") == "1"


def rule(primal, bwd):
    @jax.custom_vjp
    def f(*args):
        return primal(*args)

    def fwd(*args):
        return primal(*args), args if len(args) > 1 else args[0]

    f.defvjp(fwd, bwd)
    return f


def test_a_gradient_that_differs_between_two_runs_is_reported():
    rng = np.random.default_rng(0)

    def drawn(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: x * (1 + 1e-6 * rng.random()), shape, x)

    f = rule(jnp.sin, lambda x, g: (jnp.where(g == 0, 0, jnp.cos(x) * drawn(g)),))
    finding = compare(f, X).findings[0]
    assert finding.verdict == "broken-contract", finding
    assert "two runs" in finding.message


def test_a_rule_that_does_not_run_where_autodiff_does_breaks_the_contract():
    def raises(x, g):
        raise NotImplementedError("later")

    for bwd, said in (
        (lambda r, g: (g * r[1],), "raises "),  # one cotangent of two
        (lambda r, g: (g * r[1], g[0]), "raises "),  # of another shape
        (raises, "raises NotImplementedError: later"),
    ):
        comparison = compare(rule(lambda x, y: x * y, bwd), X, X)
        assert not comparison.ok
        found = [(f.argument, f.verdict) for f in comparison.findings]
        assert found == [("[0]", "broken-contract"), ("[1]", "broken-contract")]
        assert all(said in f.message for f in comparison.findings), comparison
        assert comparison.manual is comparison.auto is None
        assert str(comparison).count(said) == 1, "said once, of both arguments"


def test_a_rule_that_divides_by_its_cotangent_is_reported():
    f = rule(jnp.sin, lambda x, g: (jnp.cos(x) * g**3 / (g * g),))
    assert not compare(f, X).ok
    guarded = rule(
        jnp.sin,
        lambda x, g: (
            jnp.where(g == 0, 0, jnp.cos(x) * g**3 / jnp.where(g, g * g, 1)),
        ),
    )
    assert compare(guarded, X).ok


def test_a_mistake_at_a_zero_cotangent_is_found_among_others():
    def bwd(x, g):  # right unless one row has no cotangent
        off = jnp.where((g == 0).all(-1).any(), 1.5, 1.0)
        return (jnp.cos(x) * g * off,)

    finding = compare(rule(jnp.sin, bwd), X).findings[0]
    assert finding.verdict == "wrong"
    assert "mostly 0" in finding.message

    def one_row(x, g):  # right unless that very row is the only one that has one
        alone = (g[:3] == 0).all() & (g[3] != 0).any()
        return (jnp.cos(x) * g * jnp.where(alone, 1.5, 1.0),)

    f = rule(jnp.sin, one_row)
    assert not compare(f, X, effort="full").ok


def traced_as(*kinds):
    """A rule whose bwd is off where it meets such a tracer."""

    def bwd(res, g):
        x, w = res
        off = 1.5 if type(g).__name__ in kinds else 1.0
        return g @ w.T * off, x.T @ g

    return rule(jnp.matmul, bwd)


def test_what_vmap_changes_is_reported():
    f = traced_as("BatchTracer")
    assert compare(f, X, X.T @ X).ok
    finding = compare(f, X, X.T @ X, effort="full").findings[0]
    assert finding.verdict == "broken-contract"
    assert "under vmap another gradient than without" in finding.message


def test_what_one_of_a_batch_takes_from_another_is_reported():
    @jax.custom_batching.custom_vmap
    def scaled(a, g):
        return a * g

    @scaled.def_vmap
    def _(size, batched, a, g):
        return (a[0] if batched[0] else a) * g, True  # as if a were the same for all

    f = rule(jnp.multiply, lambda res, g: (res[1] * g, scaled(res[0], g)))
    a = jnp.float32(3)
    assert compare(f, a, a + 1).ok
    _, finding = compare(f, a, a + 1, effort="full").findings
    assert "under vmap another gradient than without" in finding.message


def test_what_raises_under_vmap_is_reported_unless_autodiff_raises_too():
    def bwd(x, g):
        if type(g).__name__ == "BatchTracer":
            raise NotImplementedError("one at a time")
        return (jnp.cos(x) * g,)

    finding = compare(rule(jnp.sin, bwd), X, effort="full").findings[0]
    assert finding.verdict == "broken-contract"
    assert "raises, of autodiff it does not: one at a time" in finding.message

    def never_batched(x):
        if type(x).__name__ == "BatchTracer":
            raise NotImplementedError("one at a time")
        return jnp.sin(x)

    f = rule(never_batched, lambda x, g: (jnp.cos(x) * g,))
    # With JAX_CUSTOM_VJP3 it is the forward pass itself that is mapped.
    assert compare(f, X, effort="full").ok is not VJP3


SHARDED = """
    import jax, jax.numpy as jnp
    from jax.experimental.custom_partitioning import custom_partitioning
    from jax.sharding import NamedSharding, PartitionSpec as P
    from jaxbp import compare

    def summing(complete):
        @custom_partitioning
        def total(g):
            return g.sum(0)

        def partition(mesh, args, result):
            def local(g):
                part = g.sum(0)
                return jax.lax.psum(part, "batch") if complete else part

            spec = P(*args[0].sharding.spec[:1])
            return mesh, local, NamedSharding(mesh, P()), (NamedSharding(mesh, spec),)

        total.def_partition(
            partition=partition,
            infer_sharding_from_operands=lambda mesh, a, r: NamedSharding(mesh, P()),
            sharding_rule="i j -> j",
        )

        @jax.custom_vjp
        def shifted(x, b):
            return x + b

        def bwd(res, g):
            return g, total(g)

        shifted.defvjp(lambda x, b: (x + b, None), bwd)
        return shifted

    jax.config.update("jax_enable_x64", True)
    from jaxbp.instrument._contract import transformations
    from jaxbp.instrument._transformed import transformed
    from jaxbp.instrument._testimony import Testimony
    from jaxbp.instrument._program import traced

    x, b = jnp.arange(24.0).reshape(8, 3), jnp.ones(3)
    for complete in (True, False):
        program = traced(summing(complete), (x, b), {}, None)
        answers = Testimony(program, program.inputs, ["[0]", "[1]"], 0)
        ways = transformed(program.auto, answers.inputs, answers.probes[-1])
        names = [name for name, _ in ways]
        assert "sharding over 8 devices" in names, names
        for finding in transformations(answers):
            print(complete, finding.argument, finding.verdict, finding.message)
"""


def on_eight_devices(code):
    flags = "--xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_batch_sharded_over_devices_gives_the_same_gradient():
    lines = [line for line in on_eight_devices(SHARDED) if "sharding" in line]
    assert lines
    assert all(line.startswith("False [1] broken-contract") for line in lines)


UNDER_A_MESH = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxbp import audit, compare

square = jax.custom_vjp(lambda x: x * x)
square.defvjp(lambda x: (x * x, x), lambda x, g: (3 * x * g,))
mesh = jax.make_mesh((8,), ("batch",))
with jax.set_mesh(mesh):
    x = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, PartitionSpec("batch")))
    for ask in (compare, audit):
        found = ask(lambda x: square(x).sum(), x)
        print(found.verdict, found.findings[0].worst.numeric is not None)
"""


def test_the_numeric_witness_is_asked_under_a_mesh_of_explicit_axes():
    assert on_eight_devices(UNDER_A_MESH) == ["wrong True"] * 2


def test_a_finding_of_the_contract_shows_no_number_of_autodiffs():
    clipped = rule(lambda x: x, lambda x, g: (jnp.clip(g, -1, 1),))
    (finding,) = compare(clipped, jnp.array([20.0, -3.0])).findings
    assert finding.kind == "not linear"
    assert finding.message.endswith("2^20 times as much but 1 times")
    assert abs(finding.worst.manual) == 1
    assert finding.worst.auto is None


def test_a_narrow_cotangent_is_judged_without_a_warning():
    half = rule(lambda x: x * x, lambda x, g: ((2 * x * g).astype(jnp.float16),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(half, X.astype(jnp.float32))
    assert "a cotangent of dtype float16" in found.findings[0].message
