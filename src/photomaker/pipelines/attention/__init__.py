"""What is put around a UNet's attention: people in it, caches, regions, shortcuts."""
