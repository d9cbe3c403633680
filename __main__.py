"""`python -m sitewarden`."""

from .cli import main

main()
