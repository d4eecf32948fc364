"""Values as text that streamlit shows as it is."""

import re


def literal(text: str) -> str:
    """Text as Markdown that shows exactly this text: punctuation escaped, line breaks made spaces."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def percent(share: float) -> str:
    """A share 0-1 with one decimal."""
    return f"{100 * share:.1f} %"
