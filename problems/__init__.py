"""Statements of sizing problems, their plans, and the catalogue they draw on."""
