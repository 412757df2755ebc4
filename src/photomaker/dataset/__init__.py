"""Construction of ID-oriented datasets: many people, several photos of each, masks, captions with a marked class word.

Source: PhotoMaker, arXiv 2312.04461, section 3.3 and appendix.
"""
