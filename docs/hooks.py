"""What the site shows of the rest of the repository: measured results."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
SPEED = re.compile(r"<!-- speed, [^\n]*-->\n(.*?)<!-- /speed -->", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the results on the site, as they were written."""
    for path in sorted(RESULTS.iterdir()):
        name = f"results/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(
    markdown: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Show what the README says of speed."""
    if "{{ speed }}" not in markdown:
        return markdown
    (speed,) = SPEED.findall((ROOT / "README.md").read_text("utf-8"))
    speed = speed.replace("bench/results/", "results/")
    return markdown.replace("{{ speed }}", speed)
