"""A `python` for commands in tests that need not wait for torch and transformers to be imported."""

from .process import WarmPython

__all__ = ["WarmPython"]
