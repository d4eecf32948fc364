"""The attention grid: a canvas component that shows small maps, blocks by heads, of several models side by side.

Python gives numbers (`sheet`), the browser draws them; two things come back: the map that a reader enlarged, and the
patch that was made the query. The scripts, in the order they are joined (`show.SCRIPTS`): values.js (numbers and the
payload), paint.js (a map as pixels), grid.js (the small maps), large.js (the enlarged maps), start.js.
"""

from app.attention_grid.sheet import Large, Model, Sheet
from app.attention_grid.show import show_sheet

__all__ = ["Large", "Model", "Sheet", "show_sheet"]
