"""Published dataset layouts to rows of our manifest."""
