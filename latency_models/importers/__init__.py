"""Readers of measurements made by other tools."""
