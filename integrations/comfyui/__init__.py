"""PhotoMaker in ComfyUI: link this folder into ComfyUI's `custom_nodes`; see README.md."""

from . import engine_nodes, native_nodes

_SHOWN = {**engine_nodes.NODES, **native_nodes.NODES}

NODE_CLASS_MAPPINGS = {node.__name__: node for node in _SHOWN.values()}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: shown for shown, node in _SHOWN.items()}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
