"""What a caller asks for, as one value, and what is checked of it before a model is loaded."""
