"""The stand-in for ProcessMind's API and its object store, with real signatures and real expiry.

    server.py    start and stop both on one port
    api.py       the ProcessMind API; catalog.py holds the tenant, its datasets and datatables
    store.py     PUT of an object; objects.py turns the bytes into files, s3error.py shapes the refusals
    sigv4.py     the signatures on presigned URLs: made for the API, checked for the store

It keeps no state but files: grants are proven by their signature alone, so they outlive a restart.
"""
