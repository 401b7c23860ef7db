"""Stored results to one self-contained HTML page: what was run, the findings, what does not hold up, every number and figure.

Nothing in it is written by hand but headings: sentences come from result.json, published numbers and claims from the study's file.
"""

from promptgeo.report.page import Material, render
from promptgeo.report.study import Published, Study, StudyClaim

__all__ = ["Material", "Published", "Study", "StudyClaim", "render"]
