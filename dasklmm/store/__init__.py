"""What must survive a crash: arrays and results on disk."""
