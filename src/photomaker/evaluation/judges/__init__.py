"""Who measures pictures. What scores is never in a loop that trains."""
