"""What a person does in one sitting: open an engine, check photos, make an identity, order pictures, score, save."""
