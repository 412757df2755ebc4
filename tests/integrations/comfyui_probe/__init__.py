"""A ComfyUI node for tests: writes a CONDITIONING as safetensors, so that a test can read it."""

from pathlib import Path


class Probe:
    CATEGORY = "tests"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "write"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "name": ("STRING", {})}}

    def write(self, conditioning, name):
        import folder_paths
        from safetensors.torch import save_file

        tensors, ranges = {}, {}
        for place, (embeds, more) in enumerate(conditioning):
            tensors[f"{place}.embeds"] = embeds.float().clone().contiguous()
            tensors[f"{place}.pooled"] = more["pooled_output"].float().clone().contiguous()
            ranges[f"{place}"] = f"{more.get('start_percent', '')} {more.get('end_percent', '')}"
        save_file(tensors, Path(folder_paths.get_output_directory()) / f"{name}.safetensors", metadata=ranges)
        return {"ui": {"text": [name]}}


NODE_CLASS_MAPPINGS = {"Probe": Probe}
