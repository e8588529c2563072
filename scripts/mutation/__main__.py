"""Mutate the catalogue's backward passes, and see which mutants `compare` misses.

Surrogates are left out: their gradient is different on purpose.

A mutant is killed when `compare` is not ok: at the ordinary inputs, at the op's other
regimes, or with effort="full". One that survives is equivalent only if its full
Jacobians are those of the true rule at a thousand inputs. Exit code 1 if fewer than
99 % of the others are killed, if more than 15 % are declared equivalent, or if
`compare` refuses a true rule.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxbp.ops.catalogue import CASES
from scripts.mutation.run import KILLED, OUTCOMES, Result, run

# Of a surrogate only the contract is held: its mutants are surrogates too.
MUTATED = [case for case in CASES if not case.surrogate]
_LEAST_KILLED = 0.99
_MOST_EQUIVALENT = 0.15
_SAME = ("equivalent", "kink")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the instrument holds, 1 if it does not, 2 for a request gone wrong."""
    options = _parser().parse_args(arguments)
    cases = [case for case in MUTATED if not options.only or case.name in options.only]
    started = time.monotonic()
    print(f"{'op':<34} mutants  {'  '.join(OUTCOMES)}  seconds")
    results = []
    for case in cases:
        results.append(run(case, seed=options.seed, limit=options.limit))
        print(_row(results[-1]), flush=True)
    total = _total(results, time.monotonic() - started)
    print(_row(total))
    good = report(total)
    if options.json:
        options.json.write_text(json.dumps(to_dict(results, total), indent=1) + "\n")
    return 0 if good else 1


def report(total: Result) -> bool:
    """Print the rates, and every mutant that got through; whether they are enough."""
    mutants, same = len(total.fates), total.count(*_SAME)
    killed, rate, share = total.count(*KILLED), *_rates(total)
    print(
        f"\nkilled: {killed} of {mutants - same} that are not equivalent, {rate:.2%} "
        f"(at least {_LEAST_KILLED:.0%})\n"
        f"equivalent: {same} of {mutants}, {share:.2%} (at most {_MOST_EQUIVALENT:.0%})"
    )
    for outcome in ("survived", *_SAME):
        fates = [fate for fate in total.fates if fate.outcome == outcome]
        if fates:
            print(f"\n{outcome}: {_MEANING[outcome]}")
        for fate in fates:
            print(f"  {fate.op}: {fate.what}\n    {fate.where}")
            if fate.example:
                print(f"    {fate.verdict} at {textwrap.shorten(fate.example, 300)}")
    for alarm in total.alarms:
        print(f"false alarm: the true rule of {alarm}")
    return rate >= _LEAST_KILLED and share <= _MOST_EQUIVALENT and not total.alarms


_MEANING = {
    "survived": "`compare` is ok, the Jacobians are not those of the true rule",
    "equivalent": "the Jacobians are those of the true rule",
    "kink": "another subgradient, between the one-sided derivatives",
}


def to_dict(results: Sequence[Result], total: Result) -> dict:
    """JSON-ready: rates, counts of every op, the fate of every mutant."""
    rate, share = _rates(total)
    return {
        "schema": 1,
        "jax": jax.__version__,
        "seconds": round(total.seconds, 1),
        "mutants": len(total.fates),
        "kill_rate": rate,
        "equivalent_share": share,
        "false_alarms": list(total.alarms),
        "ops": {r.op: {name: r.count(name) for name in OUTCOMES} for r in results},
        "fates": [dataclasses.asdict(fate) for fate in total.fates],
    }


def _rates(total: Result) -> tuple[float, float]:
    mutants, same = len(total.fates), total.count(*_SAME)
    killed = total.count(*KILLED)
    return killed / max(1, mutants - same), same / max(1, mutants)


def _total(results: Sequence[Result], seconds: float) -> Result:
    fates = tuple(fate for result in results for fate in result.fates)
    alarms = tuple(f"{r.op}: {alarm}" for r in results for alarm in r.alarms)
    return Result("total", fates, alarms, seconds)


def _row(result: Result) -> str:
    counts = "  ".join(f"{result.count(name) or '·':>{len(name)}}" for name in OUTCOMES)
    return f"{result.op:<34} {len(result.fates):>7}  {counts}  {result.seconds:>7.0f}"


def _parser() -> argparse.ArgumentParser:
    description, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser("mutate", description=description)
    add = parser.add_argument
    names = [case.name for case in MUTATED]
    add("--only", nargs="+", metavar="NAME", choices=names, help="these ops alone")
    add("--limit", type=int, metavar="N", help="so many mutants an op, evenly chosen")
    add("--seed", type=int, default=0, metavar="N", help="of the wrong variables (0)")
    add("--json", type=Path, metavar="FILE", help="write every mutant's fate")
    return parser


def _command() -> int:
    # The twin and the secants of an op are compiled once, not once a mutant.
    with tempfile.TemporaryDirectory(prefix="jaxbp-mutate-") as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        return main()


if __name__ == "__main__":
    sys.exit(_command())
