"""`photomaker ablate`: adapters that differ in one choice of the method."""
