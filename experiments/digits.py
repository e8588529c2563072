"""digits: 8 × 8 images of handwritten digits, a multilayer network, all rows a step."""

import argparse

from experiments import _data, _images
from experiments._results import Report

HIDDEN = 32
STEPS = 300


def run(options: argparse.Namespace) -> Report:
    _data.require("sklearn", "matplotlib")
    images = _data.digits()
    steps = options.steps or STEPS
    plan = _images.Plan("digits", "multilayer", 0.5, len(images.x), steps, options.seed)
    return _images.multilayer(images, HIDDEN, plan)
