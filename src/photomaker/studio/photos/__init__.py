"""A person's photos: read, judged, and compared with what is drawn."""
