"""What an encoder reads before its decoder writes: input, programs, pages."""
