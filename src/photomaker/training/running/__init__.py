"""The training loop: steps, averaging, checkpoints, log, previews, processes."""
