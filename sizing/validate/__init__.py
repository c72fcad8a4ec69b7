"""Predicted against measured, row by row and in tables."""
