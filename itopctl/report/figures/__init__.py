"""Figures from plain records, fit for a column of a paper. They know neither the store nor where runs were made.

`catalogue.py` the figures by name · `figure_data.py` what they are made from · `make.py` records, picture, bytes ·
one module a figure, with a function that gives its records (what the CSV beside it holds) and one that draws them ·
`curves.py` what figures over training share · `references.py` points, and lines to compare them with · `panels.py`
panels, axes, the legend under them · `style.py` fonts, colours, line styles and markers.

Only `panels.py`, `style.py` and `make.py` import matplotlib, and only inside functions; it draws without a display.
"""
