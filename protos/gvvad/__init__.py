"""The API of the server; see `gvvad.v1`."""
