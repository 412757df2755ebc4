"""`photomaker evaluate`: one method in depth."""
