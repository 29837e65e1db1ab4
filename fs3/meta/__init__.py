"""The metadata service: the name space as transactions on the key-value store (README.md)."""
