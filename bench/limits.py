"""What holds a ratio back that was not reached, in the words of ``docs/performance.md``, which says more."""

import re
from typing import Any

LIMITS = {
    r"into a new array": "new arrays",
    r"^evaluate": "rows",
    r"^16 bits|^variant|^binary": "arithmetic",
    r"^class axis": "class axis",
    r"threads / 1": "threads",
    r"one call": "calls",
    r"65536x\d+ (gradient|buffer)$": "rows",
    r"^(torch\.compile|jax|fastest compiler)": "compilers",
    r"^torch": "rows",
    r"/ (read|copy)$|^cross_entropy|^value_and_grad": "waiting",
}
"""By patterns of a row's text, of which the first that is found tells."""


def limit(row: dict[str, Any]) -> str:
    """What holds a row back; nothing if it was reached."""
    text = f"{row['target']} {row['what']}"
    found = (words for pattern, words in LIMITS.items() if re.search(pattern, text))
    return "" if row["met"] != "no" else next(found, "")
