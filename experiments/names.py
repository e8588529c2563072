"""names: the US census's names, by a character model, an LSTM and a small GPT."""

import argparse
import time
import warnings
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments import _data, _figures, _language, _training
from experiments._data import LETTERS, Names
from experiments._language import Speller
from experiments._results import Report
from experiments._rows import Witness, tabulate

SAMPLED = 12
HIDDEN = 100  # scikit-learn's units, as many as the character model's


class Told(NamedTuple):
    """The loss of every character of the test names, and the seconds of training."""

    losses: np.ndarray
    seconds: float

    def figures(self) -> dict[str, str]:
        loss = f"{self.losses.mean():.6f}"
        return {"test loss a character": loss, "seconds": f"{self.seconds:.1f}"}


def run(options: argparse.Namespace) -> Report:
    _data.require("names", "sklearn", "matplotlib")
    names, test = _data.names()
    reports, vectors = [], {}
    theirs = None
    for make in (_language.ninja, _language.lstm, _language.gpt):
        speller = make(names, test, jax.random.key(options.seed))
        speller = speller._replace(steps=options.steps or speller.steps)
        theirs = theirs or by_scikit_learn(speller, test, options.seed)
        trained = train(speller, options.seed)
        reports.append(report(speller, trained, test, theirs))
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


def report(speller: Speller, trained, test: Names, theirs: Told) -> Report:
    told, drawn = {}, []
    for name, run in zip(("hand-written", "autodiff"), trained[:2], strict=True):
        logits = lambda tokens, run=run: speller.logits(run.result, tokens)
        losses = _language.character_losses(logits, test)
        told[name] = Told(losses, run.seconds)
        longest = test.tokens.shape[1]
        drawn.append(_language.sample(logits, jax.random.key(0), SAMPLED, longest))
    told["scikit-learn"] = theirs
    known = trained.witnesses(speller.name)
    mean = [float(t.losses.mean()) for t in told.values()]
    known[f"{speller.name}, loss of the test names at the end"] = Witness(*mean[:2])
    known[f"{speller.name}, the same of scikit-learn's"] = Witness(mean[2])
    title = f"{speller.name}: {speller.steps:,} steps of {speller.batch}"
    good = _training.as_good(told["hand-written"].losses, theirs.losses)
    lines = [
        _training.table(title, {name: t.figures() for name, t in told.items()}),
        _training.said(trained),
        f"as good as scikit-learn's: {'yes' if good else 'NO'}",
        f"sampled names: {', '.join(drawn[0])}",
        "autodiff's are the same"
        if drawn[0] == drawn[1]
        else f"autodiff's: {drawn[1]}",
    ]
    stem = f"names_{speller.name.replace(' ', '_')}"
    figures = {f"{stem}_curves": _figures.curves(f"names, {speller.name}", trained)}
    return Report(tabulate("names", known), figures, "\n".join(lines))
