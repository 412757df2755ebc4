"""Carries out the tasks of a plan: methods opened, pictures made and measured, results kept."""
