"""Metrics, the benchmark that uses them, and its report: what a personalisation method reaches, in figures.

`metrics` holds pure functions of arrays, `prompts` the benchmark's prompts; `tasks` names pictures, `runner`
makes and measures them, `parts` turns measurements into figures, `report` and `plots` write them down.
"""
