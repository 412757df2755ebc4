"""ComfyUI nodes for tests: one writes a CONDITIONING as safetensors, one makes a random ControlNet."""

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


class RandomControl:
    """A ControlNet that fits a MODEL; the layers that begin as zero in training are random too."""

    CATEGORY = "tests"
    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def make(self, model):
        import comfy.cldm.cldm
        import comfy.controlnet
        import comfy.model_management
        import comfy.ops
        import torch

        config = {
            key: value
            for key, value in model.model.model_config.unet_config.items()
            if key not in ("out_channels", "disable_unet_model_creation")
        }
        config |= {"hint_channels": 3, "operations": comfy.ops.disable_weight_init, "dtype": torch.float32}
        net = comfy.cldm.cldm.ControlNet(**config)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_(0.0, 0.02, generator=generator)
        return (comfy.controlnet.ControlNet(net, load_device=comfy.model_management.get_torch_device()),)


NODE_CLASS_MAPPINGS = {"Probe": Probe, "RandomControl": RandomControl}
