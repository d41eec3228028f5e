"""Files that a crash leaves whole, folders that one process owns, weights read strictly."""
