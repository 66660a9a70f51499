"""What the program puts on the disk, and what it reads from there of others."""
