"""The model: pure functions of architecture, hardware, parallelism and load."""
