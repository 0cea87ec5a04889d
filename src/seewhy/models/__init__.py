"""What is asked: a spec, a module or any callable, made a `Model`."""

from .load import DEFAULT_MODEL, load_model
from .model import Model, wrap

__all__ = ["DEFAULT_MODEL", "Model", "load_model", "wrap"]
