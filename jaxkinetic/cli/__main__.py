"""`python -m jaxkinetic.cli`."""

from jaxkinetic.cli import main

main()
