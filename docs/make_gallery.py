"""Makes the pictures of the gallery: ``python docs/make_gallery.py [FOLDER]``.

The code is that of the page. What a block draws becomes the images that follow
it: one for a light page, and one for a dark one.
"""

import re
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

PAGE = Path(__file__).parent / "gallery.md"
BLOCK = re.compile(
    r"```python\n(.*?)```\n(?:\n!\[.*?\]\(images/(\w+)\.svg#only-light\))?",
    re.DOTALL,
)
SLATE = "#1e2129"  # what Material's dark pages are painted with
DARK = dict.fromkeys(
    ("axes.facecolor", "figure.facecolor", "savefig.facecolor"), SLATE
)
STYLES = {"": ["default"], "_dark": ["dark_background", DARK]}
SHARED = {"figure.figsize": (6.4, 4.0), "svg.hashsalt": "fusedloss"}
NO_STAMP = {"Date": None, "Creator": None}  # the same picture is the same file


def make(folder: Path) -> None:
    """Write every picture of the page into a folder, as SVG."""
    mpl.use("Agg")
    folder.mkdir(exist_ok=True)
    for suffix, style in STYLES.items():
        with plt.style.context([*style, SHARED]):
            names: dict[str, object] = {}
            for code, picture in BLOCK.findall(PAGE.read_text("utf-8")):
                exec(compile(code, PAGE, "exec"), names)  # noqa: S102
                if picture:
                    name = f"{picture}{suffix}.svg"
                    plt.savefig(folder / name, metadata=NO_STAMP)
                    plt.close()


if __name__ == "__main__":
    make(Path(sys.argv[1]) if sys.argv[1:] else PAGE.parent / "images")
