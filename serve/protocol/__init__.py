"""What requests may say: their fields as typed structs, decoded once."""
