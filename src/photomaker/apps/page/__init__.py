"""The web page: people, pictures and their history on a desk, in a browser."""
