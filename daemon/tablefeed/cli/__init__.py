"""The commands, one small file each; the only place that prints and exits."""
