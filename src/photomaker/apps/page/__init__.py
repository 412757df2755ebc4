"""The web page: people, pictures and their history in a browser, on a desk."""
