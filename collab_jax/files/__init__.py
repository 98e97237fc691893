"""Locks between processes, and files and folders that are whole or absent."""
