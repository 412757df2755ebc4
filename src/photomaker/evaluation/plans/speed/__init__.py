"""`photomaker speed`: what drawing with less work costs."""
