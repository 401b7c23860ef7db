"""Stored results to one self-contained HTML page: what was run, the findings, what does not hold up, numbers, figures.

Nothing in it is written by hand but headings: sentences come from result.json, published numbers and claims from the
study's file.
"""
