"""The tables, each a module that measures it."""
