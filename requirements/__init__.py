"""What the product is made of: the lock files, and programs that say what is in them."""
