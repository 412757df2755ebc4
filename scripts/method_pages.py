"""Write the figures of benchmarks/methods.json into the methods' pages, docs/methods/NAME.md.

python scripts/method_pages.py
python scripts/method_pages.py --check    # change nothing; fail where a page says something else
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from photomaker.evaluation.plans.compare.pages import PAGE_START, method_page
from photomaker.evaluation.report.files import write

ROOT = Path(__file__).parents[1]


def main(argv: list[str] | None = None) -> int:
    """Run the script; the status is 1 where a page is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(argv)
    document = json.loads((ROOT / "benchmarks" / "methods.json").read_text(encoding="utf-8"))
    wrong = []
    for page in sorted((ROOT / "docs" / "methods").glob("*.md")):
        if page.stem not in document["methods"]:
            if PAGE_START not in page.read_text(encoding="utf-8"):
                continue  # a method that has not been measured says so itself
            wrong.append(f"benchmarks/methods.json has no method {page.stem}; run `make benchmark`")
            continue
        text = method_page(page, document, page.stem)
        if not options.check:
            write(page, text)
        elif text != page.read_text(encoding="utf-8"):
            wrong.append(
                f"{page.name} is not what benchmarks/methods.json says; run this script without --check"
            )
    for fault in wrong:
        print(fault, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
