"""The secret that deliveries are signed with, in a module that costs a program under test nothing to import."""

SECRET = "the secret of the benchmark"  # noqa: S105 - nobody else uses it
