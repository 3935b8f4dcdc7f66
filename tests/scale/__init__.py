"""A plan for far more: a model of a fleet and its PostgreSQL, what it gives, and the page that tells it."""
