"""Boxes that nobody drew: what a teacher says of pictures, how sure it is, and what that is worth."""
