"""A run: its loop, its start, its directory, and what is done with it afterwards."""
