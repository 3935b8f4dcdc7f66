"""The benchmark: tablefeed and what people would use instead, in one run, on one machine, against the same servers."""
