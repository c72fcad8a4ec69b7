"""What happens over time: a profiler's demand on a platform's supply."""
