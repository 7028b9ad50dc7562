"""What other programs said once: their numbers as files, and the scripts that asked them."""
