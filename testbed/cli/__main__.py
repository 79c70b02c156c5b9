"""`python -m testbed.cli`: the command line without its console script."""

from testbed.cli.main import main

main()
