"""What `detrank demo` ranks, and how."""
