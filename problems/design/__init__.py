"""Which accelerator should exist: the statement, its cost, the answer, its check."""
