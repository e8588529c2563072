"""`scripts/bench SUBJECT [options]`: every module beside this one is a subject."""

import argparse
import ast
import importlib
import json
import pathlib

_HERE = pathlib.Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser("bench", description=__doc__)
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    parsers = {}
    for path in sorted(_HERE.glob("[a-z]*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        summary = about.splitlines()[0]
        parsers[path.stem] = subjects.add_parser(
            path.stem, help=summary, description=about
        )
        parsers[path.stem].add_argument(
            "--json", type=pathlib.Path, metavar="FILE", help="write the figures there"
        )
    # A subject's own options are its module's; modules import JAX: the asked one only.
    chosen = parser.parse_known_args()[0].subject
    module = importlib.import_module(f"benchmarks.{chosen}")
    module.options(parsers[chosen])
    options = parser.parse_args()
    figures = module.run(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
