"""Tables from plain records, in every format. Knows neither the store nor where runs were made.

`table.py` a table as a value, `quantity.py` a number in it · `formats` rich, markdown, LaTeX, HTML, CSV, JSON ·
`groups.py` runs that differ in nothing but the seed · `statistics.py` mean and spread · `paper.py` the table of a
paper, `published.py` published numbers beside it · `exploration_table.py`, `layers.py`, `cost.py` further tables of
groups · `runs.py` one row a run · `run_details.py` one run in full · `number_text.py` numbers as people read them.
"""
