"""What all methods share on a stock pipeline: opening it, requests to batches, what a request carries besides words."""
