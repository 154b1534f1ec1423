"""Pipelines of every family that single files hold."""

PIPELINES = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}
