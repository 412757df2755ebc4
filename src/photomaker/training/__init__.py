"""Training: one loop for every model of the house, and the recipes that run in it."""
