"""The page of photomaker as a Hugging Face Space: everybody may come in, and sees only what is theirs.

The bundled small model needs no GPU. For photographs set BASE and ADAPTER in the Space's settings, as docs/ui.md tells.
"""

import os
from pathlib import Path

from photomaker.apps.serve import Served
from photomaker.apps.ui import Shown, run

ENGINE = {name: os.environ[name.upper()] for name in ("base", "adapter") if name.upper() in os.environ}

if __name__ == "__main__":
    served = Served(
        host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        data=Path(os.environ.get("PHOTOMAKER_DATA", "photomaker-data")),
        engine=ENGINE,
    )
    run(Shown(served, browser=False, visitors=True))
