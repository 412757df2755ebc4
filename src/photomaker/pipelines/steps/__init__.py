"""What happens between denoising steps: schedulers, delayed merging, guidance, inpainting, watching, previews."""
