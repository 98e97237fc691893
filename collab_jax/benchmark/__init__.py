"""What each method costs: planned for GPUs that need not be there, and measured on this machine."""
