"""How a model is asked: the only room that runs a module or overrides an operation."""

from .call import Call
from .trace import Trace

__all__ = ["Call", "Trace"]
