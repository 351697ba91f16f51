"""Torch networks: temporal layers, the video UNet, builders and weight files."""
