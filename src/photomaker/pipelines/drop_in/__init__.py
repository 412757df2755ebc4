"""PhotoMaker on any stock diffusers SDXL pipeline, under the official names."""
