"""The rows of the promise: one fault each, with its dose, its figures and its condition."""
