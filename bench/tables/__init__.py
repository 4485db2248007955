"""What measures the tables: one of them in each file, or two of a kind."""
