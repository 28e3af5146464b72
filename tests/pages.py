"""Runs the Python of Markdown pages and writes what it prints into them: ``python tests/pages.py docs/index.md ...``.

A page is one program: its blocks run in order, in one namespace. What a block prints follows it, as a block of text.
"""

import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from textwrap import dedent, indent

BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```\n(?:\n\1```text\n.*?^\1```\n)?", re.MULTILINE | re.DOTALL)


def rerun(page: Path) -> str:
    """The page with what its blocks print now."""
    text, names = page.read_text("utf-8"), {"__name__": page.stem}

    def run(block: re.Match[str]) -> str:
        margin, code = block[1], dedent(block[2])
        above, printed = text.count("\n", 0, block.start(2)), io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * above + code, page, "exec"), names)
        shown = f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else ""
        return indent(f"```python\n{code}```\n{shown}", margin)

    return BLOCK.sub(run, text)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(rerun(path), "utf-8")
