"""`python -m public_rules`: the table; exit code 1 where the list no longer holds."""

import argparse
import importlib
import importlib.metadata
import json
import sys
import time
import warnings
from dataclasses import asdict

LIBRARIES = ("jax", "optax", "flax", "equinox")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="audit_public", description=__doc__)
    parser.add_argument(
        "--only", choices=LIBRARIES, metavar="LIBRARY", help="one of them"
    )
    parser.add_argument("--json", metavar="FILE", help="write the table there too")
    given = parser.parse_args(arguments)
    from public_rules._report import ask, summary, text_of

    warnings.simplefilter("ignore")  # of the libraries, about themselves
    start, libraries = time.perf_counter(), []
    for name in (given.only,) if given.only else LIBRARIES:
        module = importlib.import_module(f"public_rules._{name}")
        libraries.append(
            ask(
                name,
                module.ASKED,
                module.NOT_ASKED,
                lambda line: print(text_of(line), flush=True),
            )
        )
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    for library in libraries:
        print(summary(library))
    lines = [line for library in libraries for line in library.lines]
    stale = [line for line in lines if line.stale]
    missed = [rule for library in libraries for rule in library.missed]
    seconds = time.perf_counter() - start
    print(f"{len(lines)} answers in {seconds:.0f} s, {len(stale)} not as the list says")
    if given.json:
        with open(given.json, "w") as file:
            json.dump(_data(versions, libraries), file, indent=1)
    return 1 if stale or missed else 0


def _data(versions, libraries):
    return {
        "versions": versions,
        "libraries": [
            {
                "name": library.name,
                "written": len(library.written),
                "met": len(library.met),
                "not_asked": {
                    rule.name: library.reason(rule)
                    for rule in library.written
                    if (rule.path, rule.name) not in library.met
                },
                "lines": [asdict(line) for line in library.lines],
            }
            for library in libraries
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
