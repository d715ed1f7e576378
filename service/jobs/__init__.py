"""Long work: many images taken at once, computed behind the requests that wait, answered from disk."""
