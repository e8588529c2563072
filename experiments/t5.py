"""T5: one-layer network, the page's rule and the true gradient, 4,000 iterations."""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from experiments import _descent, _runs
from experiments._descent import X
from experiments._results import Report
from experiments._rows import Claim, Witness, tabulate
from experiments._runs import EXAMPLES
from experiments._witnesses import align, sigma
from jaxbp import nets

Y = np.array([[0.0], [0], [1], [1]])
ITERATIONS = 4000
PRINTED_W = ("-0.1653904", "0.11737966", "-0.71922612")
PRINTED_O = ("0.00180933", "0.00120496", "0.9989796", "0.99846766")
# Of every hundredth iteration.
_ERRORS = (
    "0.5180464037927469",
    "0.05534622055219526",
    "0.02812928803534369",
    "0.01877488911128993",
    "0.014070439001015959",
    "0.011244556807545731",
    "0.009361012941052013",
    "0.00801647956636641",
    "0.007008851676297921",
    "0.006225752933087808",
    "0.005599744249940878",
    "0.005087916048536661",
    "0.00466167128726863",
    "0.004301220381145958",
    "0.0039924345571583485",
    "0.003724957786285008",
    "0.0034910268701690925",
    "0.0032847081265180403",
    "0.0031013886507480163",
    "0.002937428340221097",
    "0.0027899163929838468",
    "0.002656497439046738",
    "0.0025352451353524907",
    "0.002424568769275856",
    "0.0023231432360394703",
    "0.002229855840119956",
    "0.0021437653872587153",
    "0.002064070377780582",
    "0.001990084023778811",
    "0.0019212144414435684",
    "0.0018569488098080936",
    "0.001796840599364327",
    "0.001740499198323901",
    "0.0016875814273992033",
    "0.0016377845538804781",
    "0.0015908405048289896",
    "0.0015465110459704156",
    "0.001504583743392433",
    "0.0014648685636853335",
    "0.0014271949978083263",
)
PRINTED_ERRORS = dict(zip(range(0, ITERATIONS, 100), _ERRORS, strict=True))


def claims(runs: _runs.Runs) -> list[Claim]:
    """W as printed, iteration 0 statement by statement, then the run."""
    delta = lambda v, n: v[f"E[{n}]"] * _runs.s(v[f"O[{n}]"])
    update = lambda v, i: sum(X[n, i] * delta(v, n) for n in EXAMPLES)
    error = lambda v, n: Y[n, 0] - v[f"O[{n}]"]
    found = [Claim(f"W[{i}]", printed) for i, printed in enumerate(PRINTED_W)]
    for name, formula, count, erratum in (
        ("O", _output, 4, ""),
        ("E", error, 4, ""),
        ("delta", delta, 4, "E1"),
        ("ΔW", update, 3, "E1"),
    ):
        for k in range(count):
            at = lambda v, f=formula, k=k: f(v, k)
            note = _runs.S_OF_O if erratum else ""
            quantity = f"{name}[{k}]"
            found.append(Claim(quantity, None, at, erratum=erratum, note=note))
    return found + _runs.claims(runs, Y, PRINTED_ERRORS, PRINTED_O)


def run(options: argparse.Namespace) -> Report:
    del options
    net, (start, _) = _runs.network(3, 1), _descent.starts()
    runs = _runs.run_all(_descent.one_layer, net, start, Y, ITERATIONS)
    known = first_iteration(net, start)
    known |= _runs.witnesses(runs, Y, PRINTED_ERRORS)
    title = "T5: one layer, both rules from the same weights"
    figure = _runs.error_figure(title, runs, Y, PRINTED_ERRORS)
    parts = (_on_the_printed_weights(start), _one_ulp_away(net, start))
    text = "\n\n".join([_runs.text(runs, Y), *parts])
    drawn = _runs.system(net, start, Y, delta="−∂y/∂a1", ΔW="−∂y/∂w1")
    rows = tabulate("T5", known, claims(runs))
    return Report(rows, {"t5_errors": figure}, text, (drawn,))


def first_iteration(net: nets.Net, start: Sequence[np.ndarray]) -> dict[str, Witness]:
    """The page's quantities; its deltas and updates are minus a gradient."""
    found = _runs.at_start(net, start, Y)
    output = found.values["yhat"]
    return {
        **{f"W[{i}]": Witness(float(w)) for i, w in enumerate(start[0][:, 0])},
        **_runs.elements("O", output),
        **_runs.elements("E", _runs.difference(Y, output)),
        **_runs.elements("delta", _runs.negative(found.cotangents["a1"])),
        **_runs.elements("ΔW", _runs.negative(found.cotangents["w1"])),
    }


def from_printed_weights(start: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The errors from W as printed, and how far half a unit in the 8th decimal of every
    weight can move them."""

    def history(w):
        outputs = _descent.one_layer([w], Y, ITERATIONS, _descent.HERE)
        return _descent.errors(outputs, Y)

    printed = np.round(start[0], 8)
    errors = history(printed)
    moved = [np.abs(history(printed + 0.5e-8 * e[:, None]) - errors) for e in np.eye(3)]
    return errors, np.sum(moved, axis=0)


def _output(v: Mapping[str, float], n: int) -> float:
    return sigma(sum(X[n, i] * v[f"W[{i}]"] for i in range(3)))


def _one_ulp_away(net: nets.Net, start: Sequence[np.ndarray]) -> str:
    """Whether either rule amplifies a rounding of the start, as T6's does."""
    lines = [("", "largest", f"> {_runs.PARTED:g} from")]
    rules = {
        "page's rule": _descent.published(net),
        "true gradient": net.loss,
    }
    for name, loss in rules.items():
        apart = _descent.growth(net, loss, start, Y, ITERATIONS)
        found = _descent.first(apart > _runs.PARTED)
        when = "never" if found is None else f"{found:,}"
        lines.append((name, f"{apart.max():.1e}", when))
    return align(lines, "one weight one ulp away (6 starts): differences of errors")


def _on_the_printed_weights(start: Sequence[np.ndarray]) -> str:
    errors, width = from_printed_weights(start)
    at = list(PRINTED_ERRORS)
    printed = np.array([float(number) for number in PRINTED_ERRORS.values()])
    worst = np.max(np.abs(printed / errors[at] - 1))
    return (
        "W's 8 printed decimals fix the errors to "
        f"{np.max(width[at] / errors[at]):.1e} relative; from them the page's\n"
        f"rule meets the printed errors to {worst:.1e}. W is what T6's generator draws "
        "next:\nfrom those numbers the rule meets every printed digit."
    )
