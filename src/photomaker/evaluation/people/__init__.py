"""Who is pictured: the synthetic people, and their photos prepared for a method."""
