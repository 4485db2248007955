"""The secret that signs deliveries, in a module that a program under test imports at no cost."""

SECRET = "the secret of the benchmark"  # noqa: S105 - nobody else uses it
