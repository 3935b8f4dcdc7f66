"""What each command is called with and what its help says; the work is in `tablefeed.cli`, imported when it is done.

So help, completion in shells and health checks start quickly. `tablefeed.cli.app` finds a command by its module's name.
"""
