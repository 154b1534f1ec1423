"""Four methods for findnemo; pyproject.toml gives them their names."""
