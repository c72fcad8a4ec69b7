"""From measured operators to kernels as data: robust fits, cross-validated."""
