"""From a sizing problem to a proved plan; the only package that knows OR-Tools."""
