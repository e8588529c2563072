"""Networks that tell digits apart, trained by both routes, and what is said of them."""

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _figures, _torch, _training
from experiments._data import Images
from experiments._results import Report
from experiments._rows import Witness, tabulate
from jaxbp import nets

CLASSES = 10
_MOMENTUM = 0.9


class Plan(NamedTuple):
    """How a network is trained."""

    system: str
    network: str
    rate: float
    batch: int
    steps: int
    seed: int


class Told(NamedTuple):
    """Of every test image the probability of each class; parameters; seconds."""

    probabilities: np.ndarray
    params: Any
    seconds: float


def multilayer(images: Images, hidden: int, plan: Plan) -> Report:
    """A layer of sigmoids and a softmax, by steepest descent with Nesterov's momentum.

    scikit-learn trains the same network from the same start on the same batches: its
    own backpropagation is one more witness.
    """
    x, y = jnp.asarray(_flat(images.x)), jnp.asarray(images.y)
    # scikit-learn goes by whole epochs; a run shorter than one has fewer rows.
    rows = min(plan.steps, len(x) // plan.batch) * plan.batch
    plan = plan._replace(steps=plan.steps - plan.steps % (rows // plan.batch))
    net = nets.mlp((x.shape[1], hidden, CLASSES), loss="softmax_cross_entropy")
    start = jax.jit(net.init)(jax.random.key(plan.seed))

    def batches(step, key):
        del key  # in the order of the rows, the same for scikit-learn
        at = step * plan.batch % rows
        some = [jax.lax.dynamic_slice_in_dim(a, at, plan.batch) for a in (x, y)]
        return some[0].astype(float) / images.white, jax.nn.one_hot(some[1], CLASSES)

    trained = _training.train_twice(
        f"{plan.system}: {plan.network} network",
        net.loss,
        start,
        batches,
        optax.sgd(plan.rate, momentum=_MOMENTUM, nesterov=True),
        steps=plan.steps,
        seed=plan.seed,
        evaluate=_tests(net, _flat(images.x_test) / images.white, images.y_test),
    )
    ends = [route.result.params for route in trained[:2]]
    theirs = _by_scikit_learn(images, start, rows, plan)
    tell = lambda params: net.forward(params, _flat(images.x_test) / images.white)
    report = _report(plan, images, trained, tell, {"scikit-learn": theirs})
    first = np.asarray(ends[0][0]["w"]).T.reshape(-1, *images.x.shape[1:])
    return _with_weights(report, plan, first)


def convolutional(images: Images, net: nets.Net, plan: Plan) -> Report:
    """Convolutions, by Adam with a rate that falls to 0 as half a cosine does.

    PyTorch, where it is installed, trains the same network from the same start on the
    same batches.
    """
    seen = images.x_test[..., None] / images.white

    def loss(params, rows):
        return net.loss(params, (rows[0].astype(float) / images.white, rows[1]))

    start = jax.jit(net.init)(jax.random.key(plan.seed))
    trained = _training.train_twice(
        f"{plan.system}: {plan.network} network",
        loss,
        start,
        (images.x[..., None], images.y),
        optax.adam(optax.cosine_decay_schedule(plan.rate, plan.steps)),
        steps=plan.steps,
        batch_size=plan.batch,
        seed=plan.seed,
        evaluate=_tests(net, seen, images.y_test),
    )
    tell = lambda params: net.forward(params, seen)
    report = _report(plan, images, trained, tell, _by_pytorch(images, start, plan))
    first = np.asarray(trained.manual.result.params["conv1"]["w"])[:, :, 0]
    return _with_weights(report, plan, first.transpose(2, 0, 1))


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _tests(net: nets.Net, x: np.ndarray, y: np.ndarray) -> Callable[[Any], Any]:
    @jax.jit
    def figures(params):
        logits = net.forward(params, x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        right = (logits.argmax(axis=-1) == y).mean(dtype=logits.dtype)
        return {"test loss": losses.mean(), "test accuracy": right}

    return figures


def _by_scikit_learn(images: Images, start, rows: int, plan: Plan) -> Told:
    """Its MLPClassifier, from our start, in our order."""
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits  # which scikit-learn brings

    given = _flat(images.x)[:rows] / images.white, images.y[:rows]
    epochs = plan.steps * plan.batch // rows
    model = MLPClassifier(
        [layer["w"].shape[1] for layer in start[:-1]],
        activation="logistic",
        solver="sgd",
        momentum=_MOMENTUM,
        learning_rate_init=plan.rate,
        alpha=0,
        batch_size=plan.batch,  # pyright: ignore - a number or "auto"
        shuffle=False,
        max_iter=1,
        n_iter_no_change=epochs + 1,
        warm_start=True,
    )
    # Threads of BLAS gain nothing on rows so few, and wait for one another.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that are too few to converge
        model.fit(*given)  # which makes room for a start
        model.coefs_ = [np.array(layer["w"]) for layer in start]
        model.intercepts_ = [np.array(layer["b"]) for layer in start]
        began = time.perf_counter()
        model.set_params(max_iter=epochs).fit(*given)
    seconds = time.perf_counter() - began
    probabilities = model.predict_proba(_flat(images.x_test) / images.white)
    layers = zip(model.coefs_, model.intercepts_, strict=True)
    params = tuple({"w": w, "b": b} for w, b in layers)
    return Told(np.asarray(probabilities), params, seconds)


def _by_pytorch(images: Images, start, plan: Plan) -> dict[str, Told]:
    if not _torch.is_installed():
        return {}
    theirs = _torch.fitted(
        _torch.convolutional(images.white),
        start,
        (images.x[..., None], images.y),
        rate=plan.rate,
        batch=plan.batch,
        steps=plan.steps,
        seed=plan.seed,
    )
    logits = theirs.logits(images.x_test[..., None])
    told = Told(np.asarray(jax.nn.softmax(logits)), theirs.params, theirs.seconds)
    return {_torch.PYTORCH: told}


def _report(
    plan: Plan,
    images: Images,
    trained: _training.Trained,
    tell,
    others: dict[str, Told],
) -> Report:
    """Rows of every figure, the curves, the confusions, and a table."""
    y, known = images.y_test, trained.witnesses(plan.network)
    told = {}
    for name, run in zip(("hand-written", "autodiff"), trained[:2], strict=True):
        params = run.result.params
        found = np.asarray(jax.nn.softmax(tell(params)))
        told[name] = Told(found, params, run.seconds)
    told |= others
    right = {name: t.probabilities.argmax(axis=1) == y for name, t in told.items()}
    accuracy = {name: float(found.mean()) for name, found in right.items()}
    manual, auto, *_ = accuracy.values()
    known[f"{plan.network}, test accuracy"] = Witness(manual, auto)
    for name in others:
        title = f"{plan.network}, test accuracy of {name}'s"
        known[title] = Witness(accuracy[name])
    text = _training.table(
        f"{plan.network} network: {plan.steps:,} steps of {plan.batch} images, "
        f"{len(y):,} to test",
        {name: _figures_of(t, accuracy[name], y) for name, t in told.items()},
    )
    text = f"{text}\n{_training.said(trained)}"
    for name, theirs in others.items():
        good = _training.as_good(~right["hand-written"], ~right[name])
        text += f"\nas good as {name}'s: {'yes' if good else 'NO'}"
        text += f"\n{_training.ends_apart(trained, theirs.params, name)}"
    guess = told["hand-written"].probabilities.argmax(axis=1)
    stem = f"{plan.system}_{plan.network}"
    title = f"{plan.system}, {plan.network} network"
    figures = {
        f"{stem}_curves": _figures.curves(title, trained),
        f"{stem}_confusion": _figures.confusion(f"{title}: test images", y, guess),
    }
    return Report(tabulate(plan.system, known), figures, text)


def _figures_of(told: Told, accuracy: float, y) -> dict[str, str]:
    losses = -np.log(told.probabilities[np.arange(len(y)), y])
    return {
        "test accuracy": f"{accuracy:.4f}",
        "test loss": f"{losses.mean():.6f}",
        "seconds": f"{told.seconds:.1f}",
    }


def _with_weights(report: Report, plan: Plan, first: np.ndarray) -> Report:
    stem = f"{plan.system}_{plan.network}"
    title = f"{plan.system}, {plan.network}: first weights; blue adds, red takes away"
    drawn = {f"{stem}_weights": _figures.weights(title, first)}
    return report._replace(figures={**report.figures, **drawn})
