"""What people read: reports, model cards, progress."""
