"""What holds for all tests."""

from tablefeed.lease import ignore_lease_breaks

ignore_lease_breaks()
