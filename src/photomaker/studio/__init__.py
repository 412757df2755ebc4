"""What a person does in one sitting: open an engine, check photos, make an identity, order pictures, score, save."""

from photomaker.studio.engine import Engine
from photomaker.studio.events import Cancel
from photomaker.studio.orders import Order, Someone
from photomaker.studio.photos import Sitting
from photomaker.studio.prompts import check_prompt
from photomaker.studio.saving import check_folder, save_samples

__all__ = ["Cancel", "Engine", "Order", "Sitting", "Someone", "check_folder", "check_prompt", "save_samples"]
