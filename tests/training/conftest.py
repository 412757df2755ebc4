"""Makes the stand-in world importable by the tests of this room, and keeps tiny models on one thread."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
