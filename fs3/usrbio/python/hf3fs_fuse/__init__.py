"""3FS's package of this name."""
