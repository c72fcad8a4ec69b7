"""Plans over a candidates table: its rows counted by the same model as ours."""
