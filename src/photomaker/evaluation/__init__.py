"""Metrics, the benchmark that uses them, and its report: what a personalisation method reaches, in figures.

`metrics` holds pure functions of arrays, `prompts` the benchmark's prompts, `tasks` and `runner` make and measure
pictures, `figures` turns measurements into figures with intervals, `report` and `plots` write them down.
"""
