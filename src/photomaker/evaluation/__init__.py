"""Metrics, the benchmark that uses them, and its report: what a personalisation method reaches, in figures.

The walk of a row, which all four commands share:

1. `plans/` say what is pictured: people x prompts x settings, a folder for each command. A plan lists tasks.
2. `running/runner.py` carries the tasks out, in this process or in several. A task opens what it needs through
   `running/worker.py`: people (`people/`), a method (`running/methods.py`), a judge (`judges/`).
3. `running/store.py` keeps what a task found. What is there is not done again.
4. `report/tables.py` makes figures of it: a column says what a figure is computed from, and intervals are over people.
   `metrics.py` holds the formulas; `report/files.py` and `report/plots.py` write pages and plots.
"""
