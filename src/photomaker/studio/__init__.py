"""What a person does in one sitting: open an engine, check photos, make an identity, generate, score, save."""

from photomaker.studio.engine import Engine
from photomaker.studio.photos import Sitting
from photomaker.studio.prompts import check_prompt
from photomaker.studio.saving import check_folder, save_samples

__all__ = ["Engine", "Sitting", "check_folder", "check_prompt", "save_samples"]
