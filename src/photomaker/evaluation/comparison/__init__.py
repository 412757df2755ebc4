"""Methods side by side on the same people, photos, prompts and noise: `photomaker benchmark`."""
