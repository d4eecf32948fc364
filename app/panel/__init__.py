"""The panel: a canvas component that shows saliency maps of several models side by side.

Python gives numbers (`payload`), the browser draws them: zoom, colours, scale and opacity cost no request.
The scripts, in the order they are joined (`show.SCRIPTS`): values.js (numbers to numbers), look.js (what a viewer may
change, and its short text in the address), maps.js (what each cell shows), paint.js (a cell as pixels), layout.js
(heads, cells, legends), controls.js (the bar), gestures.js (wheel, drag, keys, hover), sheet.js (PNG and SVG),
panel.js (starts it all).
"""

from app.panel.payload import Column, MapCell, Panel, Row
from app.panel.show import panel_texts, show_panel

__all__ = ["Column", "MapCell", "Panel", "Row", "panel_texts", "show_panel"]
