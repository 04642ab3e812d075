"""The command line: parsing only. Nothing here is imported by the library."""
