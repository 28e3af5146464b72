"""What the pages link to that lies elsewhere in the repository."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "bench" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the measured results on the site, as they were written."""
    for path in sorted(RESULTS.glob("*.json")):
        name = f"results/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
