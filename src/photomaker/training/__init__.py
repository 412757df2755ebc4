"""Training: one loop for every model, and the recipes that run in it."""
