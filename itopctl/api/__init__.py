"""Everything that itopctl does, from Python: `project.py` has the one object, `Project`.

`opening.py` results folders and their stores · `planning.py` specs to plans · `worklist.py` runs that are to be made ·
`running.py` a pool on this machine · `asking.py` what a report is asked for · `sources.py` runs as records, from one or
several stores · `reporting.py` tables · `figures.py` what figures are made from · `page.py`, `page_figures.py` the HTML
page · `frames.py` records as pandas frames. Nothing here prints.
"""
