"""`photomaker benchmark`: methods side by side."""
