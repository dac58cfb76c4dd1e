"""`gvvad demo`: a camera of our own, the real server, and what it sees, live."""
