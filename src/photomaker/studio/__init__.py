"""What every door offers: open an engine, check photos, make an identity, order pictures, score, save."""
