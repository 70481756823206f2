"""The command line: one file a verb, the parser that finds them, and the flags that they share."""
