"""The version of findnemo."""

__version__ = "0.1.0"
