"""names: the US census's names, by a character model, an LSTM and a small GPT."""

import argparse
import functools
import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import _data, _figures, _language, _torch, _training
from experiments._data import LETTERS, Names
from experiments._language import Speller
from experiments._results import Report
from experiments._rows import Witness, tabulate

SAMPLED = 12
HIDDEN = 100  # scikit-learn's units, as many as the character model's


class Told(NamedTuple):
    """The loss of every character of the test names; the seconds of training.

    `params` at the end, of what began where ours did.
    """

    losses: np.ndarray
    seconds: float
    params: Any = None

    def figures(self) -> dict[str, str]:
        loss = f"{self.losses.mean():.6f}"
        return {"test loss a character": loss, "seconds": f"{self.seconds:.1f}"}


def run(options: argparse.Namespace) -> Report:
    _data.require("names", "sklearn", "matplotlib")
    names, test = _data.names()
    reports, vectors = [], {}
    others: dict[str, Told] = {}
    for make in (_language.ninja, _language.lstm, _language.gpt):
        speller = make(names, test, jax.random.key(options.seed))
        speller = speller._replace(steps=options.steps or speller.steps)
        if not others:  # of three characters, beside every network
            others = {"scikit-learn": by_scikit_learn(speller, test, options.seed)}
        trained = train(speller, options.seed)
        if _torch.is_installed():
            others[_torch.PYTORCH] = by_pytorch(speller, options.seed)
        reports.append(report(speller, trained, test, others))
        found = trained.manual.result.params[speller.letters]
        vectors[speller.name] = np.asarray(found)
    letters = _figures.letters(vectors, ["end", *LETTERS[1:]])
    return _training.joined([*reports, Report([], {"names_letters": letters})])


def train(speller: Speller, seed: int) -> _training.Trained:
    """By Adam, with a rate that falls to 0 as half a cosine does."""
    evaluate = jax.jit(lambda params: {"test loss": speller.losses(params).mean()})
    return _training.train_twice(
        f"names: {speller.name}",
        speller.loss,
        speller.start,
        speller.data,
        optax.adam(optax.cosine_decay_schedule(speller.rate, speller.steps)),
        steps=speller.steps,
        batch_size=speller.batch,
        seed=seed,
        evaluate=evaluate,
        **speller.options,
    )


def by_scikit_learn(ninja: Speller, test: Names, seed: int) -> Told:
    """A network of as many units on the same three characters, for as many steps.

    Each is given as 27 numbers, one of them 1: what the character model reads through
    its embedding. It has no batch norm.
    """
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits  # which scikit-learn brings

    see = lambda rows: np.eye(len(LETTERS), dtype=np.float32)[rows].reshape(
        len(rows), -1
    )
    contexts, labels = (a[: ninja.steps * ninja.batch] for a in ninja.data)
    model = MLPClassifier(
        [HIDDEN],
        activation="tanh",
        batch_size=ninja.batch,  # pyright: ignore - a number or "auto"
        max_iter=1,
        alpha=0,
        random_state=seed,
    )
    began = time.perf_counter()
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one pass that is too few to converge
        model.fit(see(contexts), labels)
    seconds = time.perf_counter() - began
    asked, following = _data.windows(test, 3)
    sure = model.predict_log_proba(see(asked))
    place = np.searchsorted(model.classes_, following)
    return Told(-sure[np.arange(len(following)), place], seconds)


def by_pytorch(speller: Speller, seed: int) -> Told:
    """The same network, from the same start, on the same batches."""
    theirs = _torch.fitted(
        speller.theirs(),
        speller.start,
        speller.data,
        rate=speller.rate,
        batch=speller.batch,
        steps=speller.steps,
        seed=seed,
    )
    rows, labels = speller.tests
    counted = labels != _data.UNCOUNTED
    losses = optax.softmax_cross_entropy_with_integer_labels(
        theirs.logits(rows)[counted], labels[counted]
    )
    return Told(np.asarray(losses), theirs.seconds, theirs.params)


def report(speller: Speller, trained, test: Names, others: dict[str, Told]) -> Report:
    told, drawn = {}, []
    for name, run in zip(("hand-written", "autodiff"), trained[:2], strict=True):
        logits = functools.partial(speller.logits, run.result)
        losses = _language.character_losses(logits, test)
        told[name] = Told(losses, run.seconds)
        longest = test.tokens.shape[1]
        drawn.append(_language.sample(logits, jax.random.key(0), SAMPLED, longest))
    known = trained.witnesses(speller.name)
    known[f"{speller.name}, loss of the test names at the end"] = trained.ending(
        lambda result: _language.character_losses(
            functools.partial(speller.logits, result), test
        ).mean()
    )
    as_good = []
    for name, theirs in others.items():
        found = Witness(float(theirs.losses.mean()))
        known[f"{speller.name}, the same of {name}'s"] = found
        good = _training.as_good(told["hand-written"].losses, theirs.losses)
        as_good.append(f"as good as {name}'s: {'yes' if good else 'NO'}")
        if theirs.params is not None:
            as_good.append(_training.ends_apart(trained, theirs.params, name))
    told |= others
    title = f"{speller.name}: {speller.steps:,} steps of {speller.batch}"
    lines = [
        _training.table(title, {name: t.figures() for name, t in told.items()}),
        _training.said(trained),
        *as_good,
        f"sampled names: {', '.join(drawn[0])}",
        "autodiff's are the same"
        if drawn[0] == drawn[1]
        else f"autodiff's: {drawn[1]}",
    ]
    stem = f"names_{speller.name.replace(' ', '_')}"
    figures = {f"{stem}_curves": _figures.curves(f"names, {speller.name}", trained)}
    return Report(tabulate("names", known), figures, "\n".join(lines))
