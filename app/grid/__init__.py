"""The grid: a component that shows the images of a page as thumbnails, to click on or to walk through by keys."""

from app.grid.show import Answered, Cell, Grid, show_grid

__all__ = ["Answered", "Cell", "Grid", "show_grid"]
