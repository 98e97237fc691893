"""What a config and a data set determine. It computes only: nothing here touches a file."""
