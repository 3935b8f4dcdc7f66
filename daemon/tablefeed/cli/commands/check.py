"""`tablefeed check`."""

from tablefeed.cli.options import Config


def check(config: Config = None) -> None:
    """Try all that a delivery needs, and deliver nothing.

    That is the configuration, the ledger, keys, directories, tenant, organization, datasets and each feed's datatable.
    It says what is wrong and how to mend it. Run it as the user that runs the daemon, before the first start and after
    each change.

    Examples:

    \b
      tablefeed check
      tablefeed check --config ./tablefeed.toml

    Exit codes: 0 all is well; else that of the first thing that is wrong: 69 the API or PostgreSQL is unavailable,
    73 the ledger or the port cannot be used, 77 no permission, 78 configuration.
    """
    from tablefeed.cli.check import check as work

    work(config)
