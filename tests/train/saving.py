"""A run that saves as it goes, in a folder, so many steps; prints its parameters."""

import sys

import jax
import jax.numpy as jnp
import optax

from jaxbp import nets, train


def main(folder: str, steps: int) -> None:
    net = nets.mlp((3, 8, 2), output="softmax", loss="softmax_cross_entropy")
    x = jax.random.normal(jax.random.key(1), (40, 3))
    result = train.fit(
        net.loss,
        net.init(jax.random.key(0)),
        (x, jax.nn.one_hot(jnp.arange(40) % 2, 2)),
        optax.adam(1e-2),
        steps=steps,
        batch_size=8,
        checkpoint=folder or None,
        resume=bool(folder),
        log_every=10,
        on_log=lambda entry: None,
    )
    leaves = jax.tree.leaves(result.params)
    print([x.hex() for leaf in leaves for x in leaf.ravel().tolist()])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
