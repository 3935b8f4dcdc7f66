"""`python -m tablefeed`."""

from tablefeed.cli.app import main

main()
