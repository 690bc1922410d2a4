"""One file a metric: its `SPEC` turns a row into a number, or None where the row cannot tell."""
