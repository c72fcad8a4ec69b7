"""Measuring an accelerator's operators: tables that calibrate and validate read."""
