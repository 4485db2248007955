"""The rows of the promise: in each file faults of one kind, with their figures and their conditions."""
