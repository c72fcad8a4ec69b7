"""Measured results of other people: what was deployed, what it did, and who says so.

Tables of several kinds, told apart by their header; one file reads each kind.
"""
