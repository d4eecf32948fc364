"""Pages, one file each, found by `app.main`.

A page's file says `ORDER` (its place in the menu) and `ICON`, has its title in the catalogue under
"viewer.<file name>.title", and draws itself when it is run.
"""
