"""The desk behind the server and the page: jobs of several callers, drawn in turn, and kept on disk."""
