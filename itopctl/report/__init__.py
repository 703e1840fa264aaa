"""Tables from plain records, in every format. Knows neither the store nor where runs were made.

`table.py` a table as a value · `formats.py` rich, markdown, LaTeX, CSV, JSON · `statistics.py` mean and spread ·
`paper.py` the table of a paper · `runs.py` one row a run · `words.py` numbers as people read them.
"""
