"""Sizing from figures that a table gives, measured or another tool's, not our model."""
