"""What the site shows of the rest of the repository: measured results."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PART = r"<!-- {0}, [^\n]*-->\n(.*?)<!-- /{0} -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the results on the site, as they were written."""
    for path in sorted(RESULTS.iterdir()):
        name = f"results/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(
    markdown: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Show what the README says of speed, here and on a card."""
    for name in ("speed", "gpu"):
        if f"{{{{ {name} }}}}" in markdown:
            readme = (ROOT / "README.md").read_text("utf-8")
            (part,) = re.findall(PART.format(name), readme, re.DOTALL)
            part = part.replace("bench/results/", "results/")
            markdown = markdown.replace(f"{{{{ {name} }}}}", part)
    return markdown
