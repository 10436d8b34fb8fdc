"""The design that milepost implements, held to its letter: its unit tests and its usage examples as written."""
