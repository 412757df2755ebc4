"""Pictures that drawing follows: landmarks, edges, depth, a subject in a scene, and the networks that read them."""
