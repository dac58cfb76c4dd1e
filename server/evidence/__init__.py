"""What is kept of the pictures around an alert, seen from the server."""
