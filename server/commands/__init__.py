"""Commands of `gvvad` in modules of their own."""
