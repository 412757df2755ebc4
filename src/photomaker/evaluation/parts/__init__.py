"""The parts of the benchmark, one file each; every one takes a `Bench` and returns a `Part`."""
