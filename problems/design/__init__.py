"""Which accelerator should exist: the statement, what it costs, the answer, its check."""
