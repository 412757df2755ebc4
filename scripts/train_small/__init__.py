"""The programs that train the bundled small model, stage by stage, from synthetic people."""
