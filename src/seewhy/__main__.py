"""`python -m seewhy`, which `torchrun -m seewhy` is too."""

from .cli import main

main()
