"""Published weights by their names, from servers that are trusted with nothing."""
