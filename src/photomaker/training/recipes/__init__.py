"""What can be trained: one recipe for each model and method."""
