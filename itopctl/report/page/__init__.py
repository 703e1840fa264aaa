"""One page that says it all: tables, figures, verdicts, every run with its config, and how to reproduce it.

A single HTML file that asks for nothing from anywhere, and reads without JavaScript, which only adds sorting, filtering
and copying. `content.py` what stands on it, as values · `configs.py` configs said as briefly as they can be ·
`render.py` the page as text · `page.html.jinja`, `page.css`, `page.js`.

Whatever somebody else wrote (names, messages, specs, log lines) is text here and nothing else: escaped where it stands,
and a Content-Security-Policy allows no script but the page's own and no request at all.
"""

from itopctl.report.page.content import Attempt, Environment, Figure, Page, RunEntry, Section, Spec
from itopctl.report.page.render import render_page

__all__ = ["Attempt", "Environment", "Figure", "Page", "RunEntry", "Section", "Spec", "render_page"]
