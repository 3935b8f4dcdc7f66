"""What is measured, a module for each kind of work. Each gives rows of the table."""
